"""Lesions, growth plates and observers: task-based figures of merit."""
