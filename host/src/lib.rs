//! tercet-host
