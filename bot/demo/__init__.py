"""`kiln demo`: the real bot on a local page that looks like Discord. All the glue to simcord is here."""
