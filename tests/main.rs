//! What the whole has to hold, seen from outside.
