pub mod limits;
pub mod mqtt;
