//! One script in one engine: loaded once, called many times, each call as if it were the first.
//!
//! By default the script's body runs before every call. What it leaves among the globals is swept;
//! whether it changed anything else that a later call could see is found by [`Sandbox::is_untouched`],
//! and then its calls are run again, each in a realm of its own. Nothing that was computed on
//! changed ground ever leaves.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use rquickjs::{
    Array, Context, Ctx, Exception, Function, Object, Persistent, Runtime, Value,
    context::EvalOptions,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::{
    super::{
        Call, Cause, Dialect, Done, Failure, Operation,
        wire::{Functions, Load},
    },
    output,
};
use crate::limits::{SCRIPT_MESSAGE_CHARS_MAX, Scripts as Limits};

const PRELUDE: &str = include_str!("prelude.js");
/// The name of the user's source in stack traces.
const FILE: &str = "script";
/// Before the source where it becomes the body of a function; on its first line.
const BODY_PREFIX: &str = "(function () {";
/// The same of a script over rows: strict, so that what it cannot change it is told so.
const ROWS_BODY_PREFIX: &str = "(function () {'use strict';";

impl Load {
    /// What stands before the source in its first line.
    fn prefix(&self) -> &'static str {
        match (&self.rows, self.keep_state) {
            (Some(_), _) => ROWS_BODY_PREFIX,
            (None, true) => "",
            (None, false) => BODY_PREFIX,
        }
    }
}

/// A script, ready to be called.
pub(in crate::script) struct Sandbox {
    load: Load,
    limits: Limits,
    functions: Functions,
    clock: Clock,
    realm: Option<Realm>,
    /// It changes built-ins: every call gets a realm of its own.
    needs_fresh_realm: bool,
}

/// An engine with a script in it. Fields are dropped in this order: functions before their runtime.
struct Realm {
    decode: Held,
    encode: Held,
    console: Held,
    sweep: Held,
    is_untouched: Held,
    context: Context,
    runtime: Runtime,
    has_run: bool,
}

type Held = Persistent<Function<'static>>;

/// The CPU clock of the call that runs.
#[derive(Clone, Default)]
struct Clock {
    stop_at_us: Rc<Cell<u64>>,
    has_rung: Rc<Cell<bool>>,
}

impl Clock {
    fn now_us() -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let (seconds, ns) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
        seconds * 1_000_000 + ns / 1_000
    }

    fn set(&self, allowed_us: u64) -> u64 {
        let now_us = Self::now_us();
        self.stop_at_us.set(now_us + allowed_us);
        self.has_rung.set(false);
        now_us
    }

    /// Once it has rung it rings on: a script that catches the first ring gets no further.
    fn rings(&self) -> bool {
        if !self.has_rung.get() && Self::now_us() >= self.stop_at_us.get() {
            self.has_rung.set(true);
        }
        self.has_rung.get()
    }
}

impl Sandbox {
    /// # Errors
    /// What is wrong with the script.
    pub(in crate::script) fn load(load: Load, limits: &Limits) -> Result<Self, Failure> {
        let mut sandbox = Self {
            load,
            limits: limits.clone(),
            functions: Functions {
                decodes: false,
                encodes: false,
            },
            clock: Clock::default(),
            realm: None,
            needs_fresh_realm: false,
        };
        let (realm, functions) = sandbox.realm(true)?;
        sandbox.functions = functions;
        sandbox.realm = Some(realm);
        if !functions.decodes && !functions.encodes {
            let name = sandbox.load.dialect.decoder();
            let message = format!("the script defines no function {name}");
            return Err(Failure::new(Cause::Missing, message));
        }
        // Its body has run once, to see what it has.
        if !sandbox.tidy() {
            sandbox.realm = None;
        }
        sandbox.is_untouched();
        Ok(sandbox)
    }

    pub(in crate::script) fn functions(&self) -> Functions {
        self.functions
    }

    #[cfg(test)]
    pub(super) fn needs_fresh_realm(&self) -> bool {
        self.needs_fresh_realm
    }

    /// Runs a call; `is_test` asks for console output and memory too.
    pub(in crate::script) fn call(&mut self, call: &Call, is_test: bool) -> Done {
        let start_us = self.clock.set(self.limits.cpu_soft_ms * 1_000);
        let mut outcome = self.attempt(call);
        // What earlier calls have left in the heap must not fail this one.
        let was_full = matches!(&outcome.0, Err(failure) if failure.cause == Cause::Memory);
        if was_full && outcome.1 {
            self.realm = None;
            self.clock.set(self.limits.cpu_soft_ms * 1_000);
            outcome = self.attempt(call);
        }
        let outcome = outcome.0;
        let is_spoiled = matches!(
            &outcome,
            Err(Failure {
                cause: Cause::Time | Cause::Memory | Cause::Syntax,
                ..
            })
        );
        let (mut console, mut heap_bytes) = (String::new(), 0);
        if let Some(realm) = &self.realm {
            if is_test || outcome.is_err() {
                console = realm.console(self.limits.console_bytes_max);
            }
            if is_test {
                let used = realm.runtime.memory_usage().malloc_size;
                heap_bytes = u64::try_from(used).unwrap_or(0);
            }
        }
        if is_spoiled || self.needs_fresh_realm || !self.tidy() {
            self.realm = None;
        }
        Done {
            outcome,
            cpu_us: u32::try_from(Clock::now_us() - start_us).unwrap_or(u32::MAX),
            console: console.into(),
            heap_bytes,
        }
    }

    /// The outcome, and whether calls had run in the same realm before.
    fn attempt(&mut self, call: &Call) -> (Result<Bytes, Failure>, bool) {
        if self.realm.is_none() {
            match self.realm(false) {
                Ok((realm, _)) => self.realm = Some(realm),
                Err(failure) => return (Err(failure), false),
            }
            // Compiling is not the call's own time.
            self.clock.set(self.limits.cpu_soft_ms * 1_000);
        }
        let Some(realm) = &mut self.realm else {
            unreachable!("it was just made");
        };
        let had_run = std::mem::replace(&mut realm.has_run, true);
        let outcome = realm.call(call, &self.limits, &self.clock, &self.load);
        (outcome, had_run)
    }

    /// Sweeps; false where only a new realm is clean.
    fn tidy(&mut self) -> bool {
        let Some(realm) = &self.realm else {
            return true;
        };
        if realm.runtime.is_job_pending() {
            return false;
        }
        self.load.keep_state
            || realm
                .context
                .with(|ctx| realm.sweep.clone().restore(&ctx)?.call::<_, ()>(()))
                .is_ok()
    }

    /// Whether no call since the last time has changed what a later one stands on. Where one has,
    /// every call from now on gets a realm of its own.
    pub(in crate::script) fn is_untouched(&mut self) -> bool {
        if self.realm.is_none() {
            return true;
        }
        // What a script over rows could change is frozen.
        if self.load.keep_state || self.needs_fresh_realm || self.load.rows.is_some() {
            return true;
        }
        let is_untouched = self.looks_untouched();
        if !is_untouched {
            self.needs_fresh_realm = true;
            self.realm = None;
        }
        is_untouched
    }

    /// Whether everything that a later call could see is as it was.
    pub(super) fn looks_untouched(&self) -> bool {
        let Some(realm) = &self.realm else {
            return true;
        };
        self.clock.set(self.limits.cpu_hard_ms * 1_000);
        let is_untouched = realm.context.with(|ctx| {
            let check = realm.is_untouched.clone().restore(&ctx)?;
            check.call::<_, bool>(())
        });
        is_untouched.unwrap_or(false)
    }

    /// A new engine with the script in it; `is_first` compiles the source alone too, and looks
    /// which functions it has.
    fn realm(&self, is_first: bool) -> Result<(Realm, Functions), Failure> {
        self.clock.set(self.limits.cpu_hard_ms * 1_000 / 2);
        let internal = |error: rquickjs::Error| {
            Failure::new(
                Cause::Memory,
                format!("the engine cannot be set up: {error}"),
            )
        };
        let runtime = Runtime::new().map_err(internal)?;
        runtime.set_memory_limit(self.limits.heap_bytes_max);
        runtime.set_max_stack_size(self.limits.stack_bytes_max);
        let clock = self.clock.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || clock.rings())));
        if is_first {
            let alone = Context::full(&runtime).map_err(internal)?;
            alone.with(|ctx| self.compile_alone(&ctx))?;
        }
        let context = Context::full(&runtime).map_err(internal)?;
        let (held, functions) = context.with(|ctx| self.furnish(&ctx, is_first))?;
        let [decode, encode, console, sweep, is_untouched] = held;
        let realm = Realm {
            decode,
            encode,
            console,
            sweep,
            is_untouched,
            context,
            runtime,
            has_run: false,
        };
        Ok((realm, functions))
    }

    /// Compiles the source as it is and nothing around it, so that lines, columns and unbalanced
    /// braces are its own. What stands before it throws, so nothing of it runs.
    fn compile_alone(&self, ctx: &Ctx<'_>) -> Result<(), Failure> {
        const STOP: &str = "throw 0;";
        let text = format!("{STOP}{}", self.load.source);
        let mut options = options(FILE);
        options.strict = self.load.rows.is_some();
        let outcome = ctx.eval_with_options::<(), _>(text, options);
        match outcome {
            Err(rquickjs::Error::Exception) => {
                let thrown = ctx.catch();
                match thrown.as_int() {
                    Some(0) => Ok(()),
                    _ => Err(self.failure(ctx, &thrown, Cause::Syntax, STOP.len())),
                }
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn furnish(&self, ctx: &Ctx<'_>, is_first: bool) -> Result<([Held; 5], Functions), Failure> {
        let host = self
            .host(ctx)
            .map_err(|error| self.caught(ctx, &error, Cause::Memory, 0))?;
        let (prefix, taken) = self.take(ctx, &host);
        taken.map_err(|error| self.caught(ctx, &error, Cause::Syntax, prefix))?;
        let mut functions = self.functions;
        if is_first {
            let has: Result<u8, _> = host
                .get::<_, Function<'_>>("has")
                .and_then(|has| has.call((0, 1)));
            let has = has.map_err(|error| self.caught(ctx, &error, Cause::Threw, prefix))?;
            functions = Functions {
                decodes: has & 1 != 0,
                encodes: has & 2 != 0,
            };
        }
        let hold = |name| {
            let function: rquickjs::Result<Function<'_>> = host.get(name);
            function
                .map(|function| Persistent::save(ctx, function))
                .map_err(|error| self.caught(ctx, &error, Cause::Memory, 0))
        };
        let held = [
            hold("decode")?,
            hold("encode")?,
            hold("console")?,
            hold("sweep")?,
            hold("isUntouched")?,
        ];
        Ok((held, functions))
    }

    /// Runs the prelude.
    fn host<'js>(&self, ctx: &Ctx<'js>) -> rquickjs::Result<Object<'js>> {
        let prelude: Function<'js> = ctx.eval_with_options(PRELUDE, options("prelude"))?;
        let settings = json!({
            "dialect": self.load.dialect.decoder(),
            "encoder": self.load.dialect.encoder(),
            "mapping": self.load.mapping,
            "rows": self.load.rows,
            "consoleMax": self.limits.console_bytes_max,
            "outputMax": self.limits.output_bytes_max,
        });
        let settings: Value<'js> = ctx.json_parse(settings.to_string())?;
        prelude.call((ctx.globals(), settings))
    }

    /// Hands the script to the prelude. Returns what stands before the source on its first line.
    fn take<'js>(&self, ctx: &Ctx<'js>, host: &Object<'js>) -> (usize, rquickjs::Result<()>) {
        let dialect = self.load.dialect;
        let own = |name| format!("typeof {name} === 'function' ? {name} : undefined");
        let functions = format!(
            "{{ decode: {}, encode: {} }}",
            own(dialect.decoder()),
            own(dialect.encoder())
        );
        let source = &self.load.source;
        let take = |given: Value<'js>| {
            host.get::<_, Function<'js>>("take")?
                .call((given, self.load.keep_state))
        };
        if self.load.keep_state {
            let outcome = ctx
                .eval_with_options::<(), _>(source.as_str(), options(FILE))
                .and_then(|()| ctx.eval_with_options(format!("({functions})"), options(FILE)))
                .and_then(take);
            return (0, outcome);
        }
        let prefix = self.load.prefix();
        let body = format!("{prefix}{source}\n;return {functions};}})");
        let outcome = ctx.eval_with_options(body, options(FILE)).and_then(take);
        (prefix.len(), outcome)
    }

    fn caught(
        &self,
        ctx: &Ctx<'_>,
        error: &rquickjs::Error,
        cause: Cause,
        prefix: usize,
    ) -> Failure {
        match error {
            rquickjs::Error::Exception => self.failure(ctx, &ctx.catch(), cause, prefix),
            error => Failure::new(cause, error.to_string()),
        }
    }

    fn failure<'js>(
        &self,
        ctx: &Ctx<'js>,
        thrown: &Value<'js>,
        cause: Cause,
        prefix: usize,
    ) -> Failure {
        failure(ctx, thrown, cause, prefix, &self.limits, &self.clock)
    }
}

fn options(file: &str) -> EvalOptions {
    let mut options = EvalOptions::default();
    // A strict one breaks one script in forty.
    options.strict = false;
    options.filename = Some(file.to_owned());
    options
}

/// Why a call has no result.
enum Wrong {
    /// The result is not what the dialect promises.
    Result(String),
    Engine(rquickjs::Error),
}

impl From<rquickjs::Error> for Wrong {
    fn from(error: rquickjs::Error) -> Self {
        Self::Engine(error)
    }
}

impl Realm {
    fn call(
        &self,
        call: &Call,
        limits: &Limits,
        clock: &Clock,
        load: &Load,
    ) -> Result<Bytes, Failure> {
        let prefix = load.prefix().len();
        self.context.with(|ctx| {
            let outcome = match call.operation {
                Operation::Decode => self.decode(&ctx, call, limits, load.dialect),
                Operation::Encode => self.encode(&ctx, call),
            };
            let outcome = outcome.map_err(|wrong| match wrong {
                Wrong::Result(message) => Failure::new(Cause::Result, message),
                Wrong::Engine(rquickjs::Error::Exception) => {
                    failure(&ctx, &ctx.catch(), Cause::Threw, prefix, limits, clock)
                }
                Wrong::Engine(error) => Failure::new(Cause::Result, error.to_string()),
            });
            match outcome {
                // It caught the ring and made something up.
                Ok(_) if clock.has_rung.get() => Err(too_long(limits)),
                outcome => outcome,
            }
        })
    }

    fn decode(
        &self,
        ctx: &Ctx<'_>,
        call: &Call,
        limits: &Limits,
        dialect: Dialect,
    ) -> Result<Bytes, Wrong> {
        let decode = self.decode.clone().restore(ctx)?;
        let value: Value<'_> = if dialect == Dialect::Transform {
            let text = std::str::from_utf8(&call.input)
                .map_err(|_| Wrong::Result("the message is not UTF-8".to_owned()))?;
            decode.call((text, time_of(call), salt_of(call)))?
        } else {
            // A plain array: one decoder in sixty cannot do with a typed one.
            let bytes = Array::new(ctx.clone())?;
            for (place, byte) in call.input.iter().enumerate() {
                bytes.set(place, *byte)?;
            }
            decode.call((bytes, time_of(call), salt_of(call)))?
        };
        let Some(text) = value.as_string() else {
            return Err(Wrong::Result(format!(
                "the function returned {}, not a text",
                kind_of(&value)
            )));
        };
        let text = text.to_string()?;
        output::check(&text, limits).map_err(Wrong::Result)?;
        Ok(text.into())
    }

    fn encode(&self, ctx: &Ctx<'_>, call: &Call) -> Result<Bytes, Wrong> {
        let encode = self.encode.clone().restore(ctx)?;
        let text = std::str::from_utf8(&call.input)
            .map_err(|_| Wrong::Result("the text to encode is not UTF-8".to_owned()))?;
        let value: Value<'_> = encode.call((text, time_of(call), salt_of(call)))?;
        let Some(array) = value.as_array() else {
            return Err(Wrong::Result(format!(
                "the function returned {}, not an array of bytes",
                kind_of(&value)
            )));
        };
        if array.is_empty() {
            return Err(Wrong::Result("the function returned no bytes".to_owned()));
        }
        let mut bytes = Vec::with_capacity(array.len());
        for place in 0..array.len() {
            let item: Value<'_> = array.get(place)?;
            bytes.push(byte_of(&item).ok_or_else(|| {
                Wrong::Result(format!(
                    "item {place} of the result is {}, not a byte",
                    kind_of(&item)
                ))
            })?);
        }
        Ok(bytes.into())
    }

    fn console(&self, bytes_max: usize) -> String {
        let lines = self.context.with(|ctx| {
            let console = self.console.clone().restore(&ctx)?;
            console.call::<_, String>(())
        });
        let lines = lines.unwrap_or_default();
        match (0..=bytes_max.min(lines.len())).rfind(|end| lines.is_char_boundary(*end)) {
            Some(end) => lines.get(..end).unwrap_or_default().to_owned(),
            None => String::new(),
        }
    }
}

/// 0 to 255, or a signed byte.
fn byte_of(item: &Value<'_>) -> Option<u8> {
    let number = match (item.as_int(), item.as_float()) {
        (Some(number), _) => number,
        (None, Some(float)) if float.fract() == 0.0 && (-128.0..=255.0).contains(&float) => {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number up to 255")]
            {
                float as i32
            }
        }
        (None, _) => return None,
    };
    u8::try_from(number)
        .ok()
        .or_else(|| Some(i8::try_from(number).ok()?.to_be_bytes()[0]))
}

fn time_of(call: &Call) -> f64 {
    // Milliseconds stay far below 2^53.
    call.time_ms as f64
}

/// The seed of a call's chance: the same for the same input at the same time (FNV-1a).
fn salt_of(call: &Call) -> i32 {
    let time = call.time_ms.to_le_bytes();
    let hash = call
        .input
        .iter()
        .chain(&time)
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    i32::from_ne_bytes(hash.to_ne_bytes())
}

fn kind_of(value: &Value<'_>) -> &'static str {
    match value.type_name() {
        "null" => "null",
        "undefined" => "nothing",
        "bool" => "a boolean",
        "int" | "float" => "a number",
        "string" => "a text",
        "array" => "an array",
        "function" | "constructor" => "a function",
        "promise" => "a promise",
        _ => "an object",
    }
}

fn too_long(limits: &Limits) -> Failure {
    Failure::new(
        Cause::Time,
        format!(
            "the call ran for more than {} ms of CPU",
            limits.cpu_soft_ms
        ),
    )
}

/// What a thrown value says, and where.
fn failure<'js>(
    ctx: &Ctx<'js>,
    thrown: &Value<'js>,
    cause: Cause,
    prefix: usize,
    limits: &Limits,
    clock: &Clock,
) -> Failure {
    let exception = thrown.as_object().cloned().and_then(Exception::from_object);
    let text = exception.as_ref().and_then(Exception::message);
    let place = exception
        .as_ref()
        .and_then(Exception::stack)
        .and_then(|stack| place_in(&stack, prefix));
    let (line, column) = place.unzip();
    let is_ours = exception
        .as_ref()
        .is_some_and(|exception| exception.get("isOurs").unwrap_or(false));
    let named = |exception: &Exception<'_>| exception.get::<_, String>("name").ok();
    let (cause, message) = match (&exception, text) {
        (Some(_), Some(text)) if is_ours => (Cause::Result, text),
        (Some(exception), Some(text)) => {
            let name = named(exception).unwrap_or_else(|| "Error".to_owned());
            const OVER: [&str; 4] = [
                "out of memory",
                "string too long",
                "stack overflow",
                "Maximum call stack size exceeded",
            ];
            let over = ["InternalError", "RangeError"].contains(&name.as_str())
                && OVER.iter().any(|part| text.contains(part));
            match over {
                true => (Cause::Memory, over_memory(&text, limits)),
                false => (cause, format!("{name}: {text}")),
            }
        }
        // The engine throws null where it has no memory left for more.
        (None, _) if thrown.is_null() => (Cause::Memory, over_memory("null was thrown", limits)),
        (Some(_), None) | (None, _) => (cause, format!("{} was thrown", thrown_text(ctx, thrown))),
    };
    // What it says of itself may have run code of the script, and that may have hung.
    if clock.has_rung.get() {
        return Failure {
            line,
            column,
            ..too_long(limits)
        };
    }
    Failure {
        cause,
        message: message.chars().take(SCRIPT_MESSAGE_CHARS_MAX).collect(),
        line: line.filter(|_| !is_ours),
        column: column.filter(|_| !is_ours),
    }
}

fn over_memory(text: &str, limits: &Limits) -> String {
    format!(
        "{text}: a script may use {} KiB of memory and {} KiB of stack",
        limits.heap_bytes_max >> 10,
        limits.stack_bytes_max >> 10
    )
}

fn thrown_text<'js>(ctx: &Ctx<'js>, thrown: &Value<'js>) -> String {
    if let Some(Ok(text)) = thrown.as_string().map(rquickjs::String::to_string) {
        return format!("{text:?}");
    }
    if let Some(number) = thrown.as_number() {
        return number.to_string();
    }
    match ctx.json_stringify(thrown.clone()) {
        Ok(Some(text)) => text.to_string().unwrap_or_default(),
        Ok(None) => kind_of(thrown).to_owned(),
        Err(_) => {
            drop(ctx.catch());
            kind_of(thrown).to_owned()
        }
    }
}

/// The first place in the user's source that a stack names, as `at name (script:3:7)`.
fn place_in(stack: &str, prefix: usize) -> Option<(u32, u32)> {
    let at = |line: &str| {
        let (_, place) = line.rsplit_once("script:")?;
        let mut numbers = place.trim_end_matches(')').split(':');
        let line: u32 = numbers.next()?.trim().parse().ok()?;
        let column: u32 = numbers.next()?.trim().parse().ok()?;
        let shift = if line == 1 {
            u32::try_from(prefix).ok()?
        } else {
            0
        };
        Some((line, column.saturating_sub(shift).max(1)))
    };
    stack.lines().find_map(at)
}
