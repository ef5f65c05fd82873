//! What must hold. The claims are the Markdown files beside this crate; tests read them.
