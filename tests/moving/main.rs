//! Coming and going, through the real programs: the move of a server, a trial beside another tool, who may reach a module.

mod approve;
mod forget;
mod hosts;
mod quiet;
#[path = "../operating/site.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod site;
mod trial;
