"""Restorers: networks from a rapid scan to a standard one. Plain `torch.nn`, one family a file.

A restorer of your own is a subclass of `rbs.restorers.base.Restorer` with a backbone; `--model.f1
CLASS_PATH` uses it.
"""
