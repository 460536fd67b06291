"""What every stage shares at run time: seeding, checkpoints, EMA, health, signals, loggers, launch."""
