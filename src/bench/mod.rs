//! What a benchmark over a network needs: an emulated link between two network namespaces. The command that uses it is
//! still to come.

pub mod link;
