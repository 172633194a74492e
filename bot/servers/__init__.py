"""What those who keep a server choose and do, and what it means for a request. Knows no Discord."""
