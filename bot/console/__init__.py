"""The web console: pictures without Discord, in the same queue."""
