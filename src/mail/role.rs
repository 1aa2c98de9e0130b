//! What a listener is for.

/// Which way the mail of a listener goes, and so what is done to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Mail that leaves: tracked and signed as its From domain says.
    #[default]
    Submission,
    /// Mail that comes in, from whoever wrote it: its From header proves nothing. It is relayed as it came, with
    /// Received added, and belongs to no sender domain.
    Inbound,
}
