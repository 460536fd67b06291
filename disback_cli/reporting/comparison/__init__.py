"""Runs side by side: their curves, what is read off them, pictures and the page. Imports no torch."""
