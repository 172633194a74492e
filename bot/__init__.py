"""Discord, the database, people. Everything here runs on one asyncio event loop; drawing is gen's."""
