"""Migrations: numbered, repeatable, frozen once released. `waypost migrate` runs them; nodes never do."""
