"""The data: what comes in, how it is kept, and how it is fed to training."""
