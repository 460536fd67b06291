"""Reading pickles without executing them: an interpreter of their opcodes, and what the public files need on top."""
