//! A pickle machine whose values are data: it builds, shares and calls nothing.
//!
//! Values live in one list and refer to each other by number, so that a value used a thousand times costs a
//! number each time, and dropping them needs no recursion. Classes and functions are names from a short list;
//! what a call of one would give is kept as its name and arguments.
//!
//! Source: `pickletools` of Python 3.11 for the instructions of protocols 0 to 5.

use super::TorchFault;
use crate::error::shown;

/// Most values; ViT-H with its optimizer has about 20,000.
const MAX_VALUES: usize = 1_000_000;
/// Most instructions.
const MAX_INSTRUCTIONS: usize = 10_000_000;
/// Most marks open at once.
const MAX_DEPTH: usize = 64;
/// Most links between values: members of lists and dictionaries, and memo entries.
const MAX_LINKS: usize = 4_000_000;

/// The classes and functions that a checkpoint may name.
const GLOBALS: [&str; 37] = [
    "collections.OrderedDict",
    "collections.defaultdict",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "builtins.dict",
    "builtins.set",
    "builtins.list",
    "__builtin__.dict",
    "__builtin__.set",
    "__builtin__.list",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "torch.Size",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.bfloat16",
    "torch.int64",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "torch.serialization._get_layout",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
];

/// The number of a value.
pub(super) type Id = usize;

/// A value that a pickle builds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Bytes, and integers beyond 64 bits; nobody looks at them.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its name.
    Global(&'static str),
    /// What a call of `callee` would give; `state` is what it would be filled with.
    Call {
        callee: &'static str,
        arguments: Vec<Id>,
        state: Option<Id>,
    },
    /// A tuple that names something outside the pickle: a storage.
    Persistent(Vec<Id>),
}

/// All values of a pickle, and which one it is.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) all: Vec<Value>,
    pub(super) root: Id,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.all[id]
    }
}

/// Runs a pickle's program to its end.
pub(super) fn run(program: &[u8]) -> Result<Values, TorchFault> {
    let mut machine = Machine {
        program,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        links: 0,
    };
    for _ in 0..MAX_INSTRUCTIONS {
        if let Some(root) = machine.step()? {
            return Ok(Values { all: machine.values, root });
        }
    }
    let (found, limit) = (MAX_INSTRUCTIONS + 1, MAX_INSTRUCTIONS);
    Err(TorchFault::TooMany { what: "pickle instructions", found, limit })
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    links: usize,
}

impl Machine<'_> {
    /// One instruction; the result, if it was the last.
    fn step(&mut self) -> Result<Option<Id>, TorchFault> {
        let at = self.at;
        let code = self.take(1)?[0];
        let stack = |expected| TorchFault::Stack { code, at, expected };
        match code {
            0x80 => {
                self.take(1)?; // the protocol
            }
            0x95 => {
                self.take(8)?; // the length of a frame
            }
            b'.' => return self.stack.pop().map(Some).ok_or(stack("a value")),
            b'(' => {
                self.limit("open marks", self.marks.len() + 1, MAX_DEPTH)?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // POP takes a mark where one is on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop().ok_or(stack("a value"))?;
                }
            }
            b'1' => drop(self.pop_mark().ok_or(stack("a mark"))?),
            b'2' => {
                let top = self.top().ok_or(stack("a value"))?;
                self.stack.push(top);
            }

            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.take(1)?[0];
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let length = self.take(1)?[0] as usize;
                self.long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            b'I' => {
                // Protocol 0 and 1 write booleans so.
                let value = match self.line()? {
                    b"01" => Some(Value::Bool(true)),
                    b"00" => Some(Value::Bool(false)),
                    digits => std::str::from_utf8(digits)
                        .ok()
                        .and_then(|d| d.parse().ok())
                        .map(Value::Int),
                };
                self.push(value.ok_or(stack("an integer"))?)?;
            }

            b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8c => {
                let length = self.take(1)?[0] as usize;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            // Strings of Python 2, taken as text.
            b'T' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            b'U' => {
                let length = self.take(1)?[0] as usize;
                self.text(length)?;
            }
            b'B' => {
                let length = self.length4()?;
                self.bytes(length)?;
            }
            b'C' => {
                let length = self.take(1)?[0] as usize;
                self.bytes(length)?;
            }
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.bytes(length)?;
            }

            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let height = self.stack.len().checked_sub(count);
                let height = height.filter(|&height| height >= self.floor());
                let members = self.stack.split_off(height.ok_or(stack("members"))?);
                self.link(count)?;
                self.push(Value::Tuple(members))?;
            }
            b't' => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.link(members.len())?;
                self.push(Value::Tuple(members))?;
            }
            b'l' | 0x91 => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.link(members.len())?;
                self.push(Value::List(members))?;
            }
            b'd' => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                let pairs = self.pairs(members).ok_or(stack("pairs"))?;
                self.push(Value::Dict(pairs))?;
            }
            b'a' => {
                let member = self.pop().ok_or(stack("a member"))?;
                self.extend(vec![member]).ok_or(stack("a list"))??;
            }
            b'e' | 0x90 => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.extend(members).ok_or(stack("a list"))??;
            }
            b's' => {
                let value = self.pop().ok_or(stack("a value"))?;
                let key = self.pop().ok_or(stack("a key"))?;
                self.insert(vec![key, value]).ok_or(stack("a dictionary"))??;
            }
            b'u' => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.insert(members).ok_or(stack("a dictionary"))??;
            }

            b'q' => {
                let slot = self.take(1)?[0] as usize;
                self.remember(slot).ok_or(stack("a value"))??;
            }
            b'r' => {
                let slot = self.length4()?;
                self.remember(slot).ok_or(stack("a value"))??;
            }
            0x94 => self.remember(self.memo.len()).ok_or(stack("a value"))??,
            b'h' => {
                let slot = self.take(1)?[0] as usize;
                self.recall(slot).ok_or(stack("a remembered value"))?;
            }
            b'j' => {
                let slot = self.length4()?;
                self.recall(slot).ok_or(stack("a remembered value"))?;
            }

            b'c' => {
                let module = self.line()?.to_vec();
                let name = self.line()?.to_vec();
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop(), self.pop());
                let (Some(Value::Text(module)), Some(Value::Text(name))) =
                    (module.map(|id| &self.values[id]), name.map(|id| &self.values[id]))
                else {
                    return Err(stack("module and name"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(module.as_bytes(), name.as_bytes())?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop().ok_or(stack("arguments"))?;
                let callee = self.pop().ok_or(stack("a class"))?;
                let (Value::Global(callee), Value::Tuple(arguments)) =
                    (&self.values[callee], &self.values[arguments])
                else {
                    return Err(stack("a class and a tuple"));
                };
                let (callee, arguments) = (*callee, arguments.clone());
                self.link(arguments.len())?;
                self.call(callee, arguments)?;
            }
            b'b' => {
                let new = self.pop().ok_or(stack("a state"))?;
                let target = self.top().ok_or(stack("an object"))?;
                match &mut self.values[target] {
                    Value::Call { state, .. } => *state = Some(new),
                    // The attributes of an ordered dictionary say nothing about its members.
                    Value::Dict(_) => {}
                    _ => return Err(stack("an object")),
                }
            }
            b'Q' => {
                let id = self.pop().ok_or(stack("a tuple"))?;
                let Value::Tuple(parts) = &self.values[id] else { return Err(stack("a tuple")) };
                let parts = parts.clone();
                self.link(parts.len())?;
                self.push(Value::Persistent(parts))?;
            }
            _ => return Err(TorchFault::Instruction { code, at }),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], TorchFault> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.program.len());
        let end = end.ok_or(TorchFault::Ends { at: self.program.len() })?;
        let bytes = &self.program[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchFault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn length4(&mut self) -> Result<usize, TorchFault> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, TorchFault> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| TorchFault::Ends { at: self.program.len() })
    }

    fn line(&mut self) -> Result<&[u8], TorchFault> {
        let rest = &self.program[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or(TorchFault::Ends { at: self.program.len() })?;
        let line = &rest[..length];
        self.at += length + 1;
        Ok(line)
    }

    fn long(&mut self, length: usize) -> Result<(), TorchFault> {
        let bytes = self.take(length)?;
        let value = match bytes.len() {
            0 => Value::Int(0),
            1..=8 => {
                let negative = bytes[bytes.len() - 1] >= 0x80;
                let mut all = [if negative { 0xff } else { 0 }; 8];
                all[..bytes.len()].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(all))
            }
            _ => Value::Bytes,
        };
        self.push(value)
    }

    fn text(&mut self, length: usize) -> Result<(), TorchFault> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|_| TorchFault::Text { at })?.to_string();
        self.push(Value::Text(text))
    }

    fn bytes(&mut self, length: usize) -> Result<(), TorchFault> {
        self.take(length)?;
        self.push(Value::Bytes)
    }

    fn limit(&self, what: &'static str, found: usize, limit: usize) -> Result<(), TorchFault> {
        if found > limit { Err(TorchFault::TooMany { what, found, limit }) } else { Ok(()) }
    }

    fn link(&mut self, count: usize) -> Result<(), TorchFault> {
        self.links += count;
        self.limit("links between pickled values", self.links, MAX_LINKS)
    }

    fn push(&mut self, value: Value) -> Result<(), TorchFault> {
        self.limit("pickled values", self.values.len() + 1, MAX_VALUES)?;
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    /// The height of the stack below which the last mark lets nothing be taken.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Option<Id> {
        if self.stack.len() > self.floor() { self.stack.pop() } else { None }
    }

    fn top(&self) -> Option<Id> {
        if self.stack.len() > self.floor() { self.stack.last().copied() } else { None }
    }

    fn pop_mark(&mut self) -> Option<Vec<Id>> {
        let height = self.marks.pop()?;
        Some(self.stack.split_off(height))
    }

    fn pairs(&self, members: Vec<Id>) -> Option<Vec<(Id, Id)>> {
        let (pairs, rest) = members.as_chunks::<2>();
        rest.is_empty().then(|| pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn extend(&mut self, members: Vec<Id>) -> Option<Result<(), TorchFault>> {
        let target = self.top()?;
        let links = self.link(members.len());
        match &mut self.values[target] {
            Value::List(list) => list.extend(members),
            // What a subclass of list, or a set, is filled with.
            Value::Call { .. } => {}
            _ => return None,
        }
        Some(links)
    }

    fn insert(&mut self, members: Vec<Id>) -> Option<Result<(), TorchFault>> {
        let target = self.top()?;
        let links = self.link(members.len());
        let pairs = self.pairs(members)?;
        match &mut self.values[target] {
            Value::Dict(dict) => dict.extend(pairs),
            Value::Call { .. } => {}
            _ => return None,
        }
        Some(links)
    }

    fn remember(&mut self, slot: usize) -> Option<Result<(), TorchFault>> {
        let top = self.top()?;
        // A writer counts slots up from 0; one far beyond the program's length is an attack.
        if slot > self.program.len() {
            return None;
        }
        if slot >= self.memo.len() {
            self.memo.resize(slot + 1, None);
        }
        self.memo[slot] = Some(top);
        Some(Ok(()))
    }

    fn recall(&mut self, slot: usize) -> Option<()> {
        let id = self.memo.get(slot).copied().flatten()?;
        // The stack is limited with the instructions: each pushes at most one.
        self.stack.push(id);
        Some(())
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Result<(), TorchFault> {
        let full = [module, b".", name].concat();
        match GLOBALS.iter().find(|known| known.as_bytes() == full) {
            Some(known) => self.push(Value::Global(known)),
            None => Err(TorchFault::Global { name: shown(&String::from_utf8_lossy(&full)) }),
        }
    }

    fn call(&mut self, callee: &'static str, arguments: Vec<Id>) -> Result<(), TorchFault> {
        let empty_dict = matches!(
            callee,
            "collections.OrderedDict"
                | "collections.defaultdict"
                | "builtins.dict"
                | "__builtin__.dict"
        );
        match callee {
            _ if empty_dict => {
                let pairs = self.listed_pairs(&arguments);
                self.link(pairs.len())?;
                self.push(Value::Dict(pairs))
            }
            // A parameter is its tensor.
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch.nn.parameter.Parameter"
                if !arguments.is_empty() =>
            {
                self.stack.push(arguments[0]);
                Ok(())
            }
            _ => self.push(Value::Call { callee, arguments, state: None }),
        }
    }

    /// The members of a dictionary made from a list of pairs, as Python 2 pickled it; else none.
    fn listed_pairs(&self, arguments: &[Id]) -> Vec<(Id, Id)> {
        let Some(Value::List(list)) = arguments.first().map(|&id| &self.values[id]) else {
            return Vec::new();
        };
        let pair = |&id: &Id| match &self.values[id] {
            Value::List(pair) | Value::Tuple(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        };
        list.iter().filter_map(pair).collect()
    }
}
