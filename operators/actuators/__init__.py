"""What carries out a plan. Belongs here: looking at the world and changing it. Never here: deciding what should be."""
