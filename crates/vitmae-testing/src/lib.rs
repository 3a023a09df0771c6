//! Comparator, gradient check, f64 references and parity cases of the vitmae workspace.
