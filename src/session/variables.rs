//! Variables of the language.

use serde_json::{Map, Value};

use crate::language::Lookup;

/// Values by name; `last` is the result of the last statement.
#[derive(Debug, Default)]
pub struct Variables(Map<String, Value>);

impl Variables {
    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Every variable with its value, in the order they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}

impl Lookup for Variables {
    fn get(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}
