"""Metrics by pretrained networks: LPIPS, FID and KID."""
