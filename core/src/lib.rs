//! tercet-core
