"""How the model is learned: starts, annealing, the sweep, the engine, the loop."""
