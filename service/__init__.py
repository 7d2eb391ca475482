"""Waypost: durable messaging on Redis Streams. Start reading at docs/architecture.md."""
