"""One thin module a verb: compose, build, run, say where the result is."""
