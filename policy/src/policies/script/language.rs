//! Reading a script: a sandbox without files, clocks or modules, in which every call has a limited number of operations.

use super::signals;
use rhai::packages::{CorePackage, Package};
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, Position, Scope};
use std::fmt;
use thiserror::Error;

/// Operations that one call may take: some thousand simple expressions.
const MAX_OPERATIONS: u64 = 100_000;
/// Calls within calls.
const MAX_DEPTH: usize = 16;
/// Letters of a string, elements of an array, entries of a map.
const MAX_SIZE: usize = 4096;

/// What is wrong with a script, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name}{}: {message}", place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default())]
pub struct ScriptError {
    /// The script.
    pub name: String,
    /// Line and column, from 1, where one is to blame.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

/// A script that has been read.
pub struct Script {
    name: String,
    source: String,
    engine: Engine,
    ast: AST,
    functions: Vec<String>,
}

/// What a script defines: each function's name and what it is called with.
pub const FUNCTIONS: [(&str, &str); 3] = [
    ("keep", "keep(block): what a fast copy is worth; the least leaves first"),
    (
        "cost",
        "cost(way): what serving a block so costs; the least is taken, () refuses all but a full-precision copy. Left out: full precision, soonest",
    ),
    (
        "prefetch",
        "prefetch(block): what fetching a block ahead is worth; above 0 it is proposed. Left out: nothing is",
    ),
];

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("name", &self.name).field("source", &self.source).finish()
    }
}

impl Script {
    /// Reads a script; `name` is what errors call it.
    ///
    /// # Errors
    /// It is not well formed, or defines none of what is asked for.
    pub fn read(name: &str, source: &str) -> Result<Script, ScriptError> {
        let engine = sandbox();
        let fail = |message: String, at: Position| ScriptError {
            name: name.to_owned(),
            place: at.line().zip(at.position()),
            message,
        };
        let ast =
            engine.compile(source).map_err(|error| fail(error.err_type().to_string(), error.position()))?;
        let known = |function: &str| FUNCTIONS.iter().any(|(known, _)| *known == function);
        for function in ast.iter_functions() {
            let takes_one = function.params.len() == 1;
            if known(function.name) && !takes_one {
                let message = format!("`{}` takes one argument", function.name);
                return Err(fail(message, Position::NONE));
            }
        }
        let functions: Vec<String> = ast.iter_functions().map(|f| f.name.to_owned()).collect();
        if !functions.iter().any(|function| function == "keep") {
            let message = "it does not define `fn keep(block)`, what a fast copy is worth".to_owned();
            return Err(fail(message, Position::NONE));
        }
        Ok(Script { name: name.to_owned(), source: source.to_owned(), engine, ast, functions })
    }

    /// Whether the script defines a function.
    pub(super) fn defines(&self, function: &str) -> bool {
        self.functions.iter().any(|defined| defined == function)
    }

    /// Calls a function of the script, for a number; `None` where it answers `()`.
    pub(super) fn call(&self, function: &str, argument: Dynamic) -> Result<Option<f64>, ScriptError> {
        let options = CallFnOptions::new().eval_ast(false);
        let answer: Result<Dynamic, _> =
            self.engine.call_fn_with_options(options, &mut Scope::new(), &self.ast, function, (argument,));
        let answer = answer.map_err(|error| self.failed(&error))?;
        let number = answer.as_float().ok().or_else(|| answer.as_int().ok().map(|whole| whole as f64));
        match number {
            Some(number) if number.is_nan() => Err(self.wrong(function, "NaN")),
            Some(number) => Ok(Some(number)),
            None if answer.is_unit() => Ok(None),
            None => Err(self.wrong(function, answer.type_name())),
        }
    }

    fn wrong(&self, function: &str, got: &str) -> ScriptError {
        let message = format!("`{function}` answers with {got}, not with a number");
        ScriptError { name: self.name.clone(), place: None, message }
    }

    /// The innermost place is the one to blame.
    fn failed(&self, error: &EvalAltResult) -> ScriptError {
        let inner = error.unwrap_inner();
        let at = inner.position();
        ScriptError {
            name: self.name.clone(),
            place: at.line().zip(at.position()),
            message: inner.to_string().trim_end_matches(&format!(" ({at})")).to_owned(),
        }
    }
}

/// An engine with arithmetic, comparisons and strings, and with functions of real numbers that give the same on every machine.
fn sandbox() -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(CorePackage::new().as_shared_module());
    engine.set_max_operations(MAX_OPERATIONS).set_max_call_levels(MAX_DEPTH);
    engine.set_max_string_size(MAX_SIZE).set_max_array_size(MAX_SIZE).set_max_map_size(MAX_SIZE);
    // Powers of floats are not the same on every machine: `pow` below is.
    for symbol in ["eval", "**", "**="] {
        engine.disable_symbol(symbol);
    }
    engine.register_fn("exp", libm::exp).register_fn("ln", libm::log).register_fn("sqrt", libm::sqrt);
    engine.register_fn("pow", libm::pow).register_fn("floor", libm::floor);
    engine.register_fn("max", f64::max).register_fn("min", f64::min);
    signals::register(&mut engine);
    engine
}
