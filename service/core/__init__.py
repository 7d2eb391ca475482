"""What Waypost decides, without I/O: no await, clock, randomness, logging, Redis or Starlette in here."""
