"""The database file: rows, transactions, the schema. Knows no Discord and no rule of the queue."""
