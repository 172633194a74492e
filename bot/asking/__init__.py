"""From what a person wants to jobs: options, styles, LoRAs, defaults, dialogs."""
