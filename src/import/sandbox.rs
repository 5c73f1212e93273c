//! A Lua state in which a configuration of lsyncd runs as far as it says something, and no further.
//!
//! There are `settings`, `sync`, `tunnel`, `default` and the libraries that only compute. Whatever would read, write,
//! start or wait for something is there by name, and says that it is not done here, and at which line. The one exception
//! are `os.getenv`, `os.date`, `os.time` and `os.clock`, which configurations do use: what they gave is reported.

use super::Source;
use super::value::{Call, Evaluation, Failure, Table, Value};
use mlua::chunk::ChunkMode;
use mlua::{
    Error, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table as LuaTable, Value as LuaValue,
    VmState,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What Lua may allocate. A configuration takes some hundred KiB.
const MEMORY_MAX: usize = 64 << 20;
/// How deep tables may be in tables; one that holds itself is deeper than any number.
const DEPTH_MAX: usize = 16;
/// Values and bytes of text of all calls together. Tables that are shared inside Lua are not shared outside.
const VALUES_MAX: usize = 200_000;
const TEXT_BYTES_MAX: usize = 8 << 20;

/// Calls of sync and settings.
const CALLS_MAX: usize = 1000;

/// The name under which Lua knows the file; its messages begin with it.
const CHUNK: &str = "configuration";

const RUNS_PROGRAMS: &str =
    "runs a program, which is not done here (write what it gives into a copy of the file)";
const READS_FILES: &str =
    "reads, writes or runs something, which is not done here (write what it gives into a copy of the file)";
const MORE_LUA: &str =
    "takes more Lua from elsewhere, which is not done here (put it into a copy of the file)";
const INTERNAL: &str = "exists only while lsyncd runs, not while it reads its configuration";
const NOT_HERE: &str = "is not there for configurations";

/// Functions that are refused, and why.
const REFUSED_FUNCTIONS: [(&str, &str); 17] = [
    ("spawn", RUNS_PROGRAMS),
    ("spawnShell", RUNS_PROGRAMS),
    ("readdir", READS_FILES),
    ("require", MORE_LUA),
    ("dofile", MORE_LUA),
    ("loadfile", MORE_LUA),
    ("loadstring", MORE_LUA),
    ("load", MORE_LUA),
    ("alarm", INTERNAL),
    ("observefd", INTERNAL),
    ("nonobservefd", INTERNAL),
    ("terminate", INTERNAL),
    ("configure", INTERNAL),
    ("collectgarbage", NOT_HERE),
    ("setfenv", NOT_HERE),
    ("getfenv", NOT_HERE),
    ("newproxy", NOT_HERE),
];

/// Tables of which every key is refused, and why.
const REFUSED_TABLES: [(&str, &str); 10] = [
    ("io", READS_FILES),
    ("package", MORE_LUA),
    ("coroutine", NOT_HERE),
    ("inlet", INTERNAL),
    ("event", INTERNAL),
    ("event2", INTERNAL),
    ("lsyncd", INTERNAL),
    ("core", INTERNAL),
    ("runner", INTERNAL),
    ("syncs", INTERNAL),
];

/// Something that is not done, and where it was asked for.
#[derive(Debug, Clone)]
struct Refusal(Failure);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Refusal {}

/// What happened so far.
#[derive(Default)]
struct Record {
    evaluation: Evaluation,
    builtins: HashMap<*const c_void, String>,
    values: usize,
    text_bytes: usize,
}

type Shared = Rc<RefCell<Record>>;

/// A state that is ready to run a configuration.
pub(super) struct Sandbox {
    lua: Lua,
    record: Shared,
    line: Arc<AtomicU32>,
}

impl Sandbox {
    /// Makes it. `line` always is the line that runs.
    pub(super) fn new(path: &str, line: Arc<AtomicU32>) -> Result<Sandbox, Failure> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8 | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::new()).map_err(|error| unexpected(&error))?;
        let sandbox = Sandbox {
            lua,
            record: Shared::default(),
            line,
        };
        sandbox.furnish(path).map_err(|error| unexpected(&error))?;
        Ok(sandbox)
    }

    fn furnish(&self, path: &str) -> mlua::Result<()> {
        let (lua, globals) = (&self.lua, self.lua.globals());
        let record = self.record.clone();
        let stand_in = lua.create_function(move |lua, name: String| {
            let function = refused(lua, name.clone(), INTERNAL)?;
            record.borrow_mut().builtins.insert(function.to_pointer(), name);
            Ok(function)
        })?;
        globals.raw_set("stand_in", stand_in)?;
        lua.load(include_str!("prelude.lua"))
            .set_name("=prelude")
            .exec()?;
        globals.raw_set("stand_in", LuaValue::Nil)?;
        for (name, why) in REFUSED_FUNCTIONS {
            globals.raw_set(name, refused(lua, name.to_owned(), why)?)?;
        }
        for (name, why) in REFUSED_TABLES {
            globals.raw_set(name, refusing(lua, name, why, lua.create_table()?)?)?;
        }
        globals
            .raw_get::<LuaTable>("string")?
            .raw_set("dump", LuaValue::Nil)?;
        globals.raw_set("os", self.clock_and_environment()?)?;
        globals.raw_set("debug", self.where_am_i(path)?)?;
        for name in ["print", "log"] {
            globals.raw_set(name, lua.create_function(|_, _: MultiValue| Ok(()))?)?;
        }
        globals.raw_set(
            "now",
            globals.raw_get::<LuaTable>("os")?.raw_get::<Function>("time")?,
        )?;
        globals.raw_set("tunnel", lua.create_function(|_, what: LuaValue| Ok(what))?)?;
        globals.raw_set("settings", self.settings()?)?;
        globals.raw_set("sync", self.sync()?)
    }

    /// `os`, with what only tells.
    fn clock_and_environment(&self) -> mlua::Result<LuaTable> {
        let lua = &self.lua;
        let full: LuaTable = lua.globals().raw_get("os")?;
        let os = lua.create_table()?;
        for name in ["clock", "difftime", "time"] {
            os.raw_set(name, full.raw_get::<Function>(name)?)?;
        }
        let (record, date) = (self.record.clone(), full.raw_get::<Function>("date")?);
        // Reads the zone of this machine, which is not possible later.
        date.call::<LuaValue>(())?;
        let noted_date = lua.create_function(move |lua, arguments: MultiValue| {
            note(&record, lua, "os.date".to_owned());
            date.call::<MultiValue>(arguments)
        })?;
        os.raw_set("date", noted_date)?;
        let record = self.record.clone();
        let getenv = lua.create_function(move |lua, name: String| {
            note(&record, lua, format!("os.getenv({name:?})"));
            Ok(std::env::var(&name).ok())
        })?;
        os.raw_set("getenv", getenv)?;
        refusing(lua, "os", READS_FILES, os)
    }

    /// `debug.getinfo`, by which configurations find their own directory.
    fn where_am_i(&self, path: &str) -> mlua::Result<LuaTable> {
        let debug = self.lua.create_table()?;
        let path = path.to_owned();
        let getinfo = self.lua.create_function(move |lua, _: MultiValue| {
            let info = lua.create_table()?;
            info.raw_set("source", format!("@{path}"))?;
            info.raw_set("short_src", path.as_str())?;
            info.raw_set("what", "main")?;
            info.raw_set("currentline", caller(lua))?;
            Ok(info)
        })?;
        debug.raw_set("getinfo", getinfo)?;
        refusing(&self.lua, "debug", NOT_HERE, debug)
    }

    /// `settings{...}` sets, `settings("key")` asks.
    fn settings(&self) -> mlua::Result<Function> {
        let (record, known) = (self.record.clone(), self.lua.create_table()?);
        self.lua
            .create_function(move |lua, argument: LuaValue| match argument {
                LuaValue::String(key) => known.raw_get::<LuaValue>(key),
                LuaValue::Table(table) => {
                    for pair in table.pairs::<LuaValue, LuaValue>() {
                        match pair? {
                            // Just the name of a switch.
                            (LuaValue::Integer(_), name) => known.raw_set(name, true)?,
                            (key, value) => known.raw_set(key, value)?,
                        }
                    }
                    record.borrow_mut().call(lua, &table, Call::Settings)?;
                    Ok(LuaValue::Nil)
                }
                _ => Err(refusal(lua, "settings takes a table, as in settings{ ... }")),
            })
    }

    fn sync(&self) -> mlua::Result<Function> {
        let record = self.record.clone();
        self.lua.create_function(move |lua, argument: LuaValue| {
            let LuaValue::Table(table) = argument else {
                return Err(refusal(lua, "sync takes a table, as in sync{ ... }"));
            };
            record.borrow_mut().call(lua, &table, Call::Sync)?;
            refusing(lua, "what sync{} gives back", INTERNAL, lua.create_table()?)
        })
    }

    /// Runs a configuration. What it allocated is left to the end of the process: taking it apart may run its code.
    pub(super) fn run(self, source: &Source) -> Result<Evaluation, Failure> {
        let text = plain(&source.text)?;
        let shown = self.line.clone();
        let hooked = self.lua.set_hook(HookTriggers::EVERY_LINE, move |_, debug| {
            if let Some(line) = debug.current_line() {
                shown.store(u32::try_from(line).unwrap_or(u32::MAX), Ordering::Relaxed);
            }
            Ok(VmState::Continue)
        });
        hooked
            .and_then(|()| self.lua.set_memory_limit(MEMORY_MAX))
            .map_err(|error| unexpected(&error))?;
        let chunk = self
            .lua
            .load(text.as_slice())
            .set_name(format!("={CHUNK}"))
            .set_mode(ChunkMode::Text);
        let outcome = chunk.exec().map_err(|error| self.failure(&error));
        let outcome = outcome.and_then(|()| self.old_settings());
        let evaluation = std::mem::take(&mut self.record.borrow_mut().evaluation);
        std::mem::forget(self);
        outcome.map(|()| evaluation)
    }

    /// `settings = { ... }`, as before lsyncd 2.1.
    fn old_settings(&self) -> Result<(), Failure> {
        let Ok(LuaValue::Table(table)) = self.lua.globals().raw_get("settings") else {
            return Ok(());
        };
        let mut record = self.record.borrow_mut();
        let table = record
            .table(&self.lua, &table, 0)
            .map_err(|error| self.failure(&error))?;
        record.evaluation.calls.insert(0, (0, Call::Settings(table)));
        Ok(())
    }

    fn failure(&self, error: &Error) -> Failure {
        let last = Some(self.line.load(Ordering::Relaxed));
        match error {
            Error::CallbackError { cause, .. } => self.failure(cause),
            Error::ExternalError(cause) => match cause.downcast_ref::<Refusal>() {
                Some(Refusal(failure)) => Failure::new(failure.line.or(last), failure.text.as_str()),
                None => Failure::new(last, cause.to_string()),
            },
            Error::MemoryError(_) => Failure::new(
                last,
                format!(
                    "it takes more memory than the {} MiB that a configuration may have",
                    MEMORY_MAX >> 20
                ),
            ),
            Error::SyntaxError { message, .. } => {
                let (line, message) = located(message);
                // What stands there is not repeated: a file that is given by mistake may be a private key.
                let what = message.split(" near ").next().unwrap_or_default();
                Failure::new(line.or(last), format!("not Lua: {what}"))
            }
            Error::RuntimeError(message) => {
                let (line, message) = located(message);
                Failure::new(line.or(last), message)
            }
            other => Failure::new(last, first_line(&other.to_string())),
        }
    }
}

/// The text as Lua takes it; a first line for a shell is none of its business, but counts.
fn plain(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match text.first() {
        Some(0x1b) => Err(Failure::new(None, "this is compiled Lua (give the source)")),
        Some(b'#') => Ok([b"--", text].concat()),
        _ => Ok(text.to_vec()),
    }
}

/// Takes the place off a message of Lua's.
fn located(message: &str) -> (Option<u32>, String) {
    let message = first_line(message);
    let rest = message
        .strip_prefix(CHUNK)
        .and_then(|rest| rest.strip_prefix(':'));
    let split = rest.and_then(|rest| rest.split_once(':'));
    match split.map(|(line, text)| (line.parse::<u32>(), text)) {
        Some((Ok(line), text)) => (Some(line), text.trim().to_owned()),
        _ => (None, message),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The sandbox itself could not be made.
fn unexpected(error: &Error) -> Failure {
    let text = format!("cannot prepare Lua: {}", first_line(&error.to_string()));
    Failure::new(None, text)
}

/// The line that calls what runs now.
fn caller(lua: &Lua) -> Option<u32> {
    let line = lua.inspect_stack(1, |debug| debug.current_line()).flatten()?;
    u32::try_from(line).ok()
}

fn refusal(lua: &Lua, text: impl Into<String>) -> Error {
    Error::external(Refusal(Failure::new(caller(lua), text)))
}

fn refused(lua: &Lua, name: String, why: &'static str) -> mlua::Result<Function> {
    lua.create_function(move |lua, _: MultiValue| -> mlua::Result<()> {
        Err(refusal(lua, format!("{name} {why}")))
    })
}

/// Has a table refuse the keys that it does not have.
fn refusing(lua: &Lua, name: &'static str, why: &'static str, table: LuaTable) -> mlua::Result<LuaTable> {
    let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| -> mlua::Result<()> {
        let key = key.to_string().unwrap_or_default();
        Err(refusal(lua, format!("{name}.{key} {why}")))
    })?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", index)?;
    meta.raw_set("__metatable", false)?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

fn note(record: &Shared, lua: &Lua, what: String) {
    const NOTES_MAX: usize = 1000;
    let noted = &mut record.borrow_mut().evaluation.surroundings;
    let entry = (caller(lua).unwrap_or_default(), what);
    if noted.len() < NOTES_MAX && !noted.contains(&entry) {
        noted.push(entry);
    }
}

impl Record {
    fn call(&mut self, lua: &Lua, table: &LuaTable, kind: fn(Table) -> Call) -> mlua::Result<()> {
        if self.evaluation.calls.len() >= CALLS_MAX {
            return Err(refusal(
                lua,
                format!("sync and settings are called more than {CALLS_MAX} times"),
            ));
        }
        let call = kind(self.table(lua, table, 0)?);
        self.evaluation
            .calls
            .push((caller(lua).unwrap_or_default(), call));
        Ok(())
    }

    /// Takes a table out of Lua, without running any of it.
    fn table(&mut self, lua: &Lua, table: &LuaTable, depth: usize) -> mlua::Result<Table> {
        if depth >= DEPTH_MAX {
            let text = format!("a table lies {DEPTH_MAX} tables deep, or in itself");
            return Err(refusal(lua, text));
        }
        let mut out = Table::default();
        for pair in table.pairs::<LuaValue, LuaValue>() {
            let (key, value) = pair?;
            let value = self.value(lua, &value, depth)?;
            match key {
                LuaValue::Integer(index) => out.indexed.insert(index, value),
                LuaValue::String(name) => {
                    self.text_bytes += name.as_bytes().len();
                    out.named.insert(name.to_string_lossy(), value)
                }
                // Nothing of lsyncd looks at such keys.
                _ => None,
            };
        }
        Ok(out)
    }

    fn value(&mut self, lua: &Lua, value: &LuaValue, depth: usize) -> mlua::Result<Value> {
        self.values += 1;
        if let LuaValue::String(text) = value {
            self.text_bytes += text.as_bytes().len();
        }
        if self.values > VALUES_MAX || self.text_bytes > TEXT_BYTES_MAX {
            let text = format!(
                "the calls of sync and settings have more than {VALUES_MAX} values or {} MiB of text",
                TEXT_BYTES_MAX >> 20
            );
            return Err(refusal(lua, text));
        }
        Ok(match value {
            LuaValue::Boolean(is) => Value::Bool(*is),
            LuaValue::Integer(number) => Value::Number(*number as f64),
            LuaValue::Number(number) if number.is_finite() => Value::Number(*number),
            LuaValue::String(text) => match text.to_str() {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(text.to_string_lossy().escape_debug().to_string()),
            },
            LuaValue::Table(table) => Value::Table(self.table(lua, table, depth + 1)?),
            LuaValue::Function(function) => match self.builtins.get(&function.to_pointer()) {
                Some(name) => Value::Builtin(name.clone()),
                None => Value::Function(
                    function
                        .info()
                        .line_defined
                        .and_then(|line| u32::try_from(line).ok()),
                ),
            },
            other => Value::Other(format!("a {}", other.type_name())),
        })
    }
}
