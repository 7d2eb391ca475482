"""Bytes to sessions and back: flow control, close codes; no rule of delivery."""
