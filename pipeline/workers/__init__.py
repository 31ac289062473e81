"""The worker processes: which stages each runs (graph) and the loop around their C bursts (base)."""
