"""How those who keep a server, and the host, see and do it in Discord."""
