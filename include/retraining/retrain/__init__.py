"""From a reason to a decision: incident, training set, candidate, duel, gate, rules."""
