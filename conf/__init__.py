"""The Hydra config tree, importable as ``disback_cli.conf``: ``pkg://disback_cli.conf`` finds it in every install."""
