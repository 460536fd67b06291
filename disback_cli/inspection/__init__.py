"""What `disback inspect` finds out about files and folders."""
