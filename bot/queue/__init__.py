"""Jobs, from the submit to their end: durable, fair, claimed once. Knows no Discord."""
