"""Drawing pictures: requests in, PNG files out. Knows no Discord, no database, no settings."""

__version__ = "0.1.0"
