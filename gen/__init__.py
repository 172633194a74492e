"""Drawing pictures: requests in, PNG files out. Knows no Discord, no database, no settings."""
