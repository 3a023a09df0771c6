//! What the instructions are made of: bytes of the program, the stack with its marks, the memo, names and calls.

use super::{GLOBALS, Id, MAX_LINKS, MAX_VALUES, Machine, Value};
use crate::error::shown;
use crate::torch::TorchFault;

impl Machine<'_> {
    pub(super) fn take(&mut self, count: usize) -> Result<&[u8], TorchFault> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.program.len());
        let end = end.ok_or(TorchFault::Ends { at: self.program.len() })?;
        let bytes = &self.program[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchFault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn length4(&mut self) -> Result<usize, TorchFault> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn length8(&mut self) -> Result<usize, TorchFault> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| TorchFault::Ends { at: self.program.len() })
    }

    pub(super) fn line(&mut self) -> Result<&[u8], TorchFault> {
        let rest = &self.program[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or(TorchFault::Ends { at: self.program.len() })?;
        let line = &rest[..length];
        self.at += length + 1;
        Ok(line)
    }

    pub(super) fn long(&mut self, length: usize) -> Result<(), TorchFault> {
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

    pub(super) fn text(&mut self, length: usize) -> Result<(), TorchFault> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|_| TorchFault::Text { at })?.to_string();
        self.push(Value::Text(text))
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<(), TorchFault> {
        self.take(length)?;
        self.push(Value::Bytes)
    }

    pub(super) fn limit(
        &self,
        what: &'static str,
        found: usize,
        limit: usize,
    ) -> Result<(), TorchFault> {
        if found > limit { Err(TorchFault::TooMany { what, found, limit }) } else { Ok(()) }
    }

    pub(super) fn link(&mut self, count: usize) -> Result<(), TorchFault> {
        self.links += count;
        self.limit("links between pickled values", self.links, MAX_LINKS)
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), TorchFault> {
        self.limit("pickled values", self.values.len() + 1, MAX_VALUES)?;
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    /// The height of the stack below which the last mark lets nothing be taken.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Option<Id> {
        if self.stack.len() > self.floor() { self.stack.pop() } else { None }
    }

    pub(super) fn top(&self) -> Option<Id> {
        if self.stack.len() > self.floor() { self.stack.last().copied() } else { None }
    }

    pub(super) fn pop_mark(&mut self) -> Option<Vec<Id>> {
        let height = self.marks.pop()?;
        Some(self.stack.split_off(height))
    }

    pub(super) fn pairs(&self, members: Vec<Id>) -> Option<Vec<(Id, Id)>> {
        let (pairs, rest) = members.as_chunks::<2>();
        rest.is_empty().then(|| pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    pub(super) fn extend(&mut self, members: Vec<Id>) -> Option<Result<(), TorchFault>> {
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

    pub(super) fn insert(&mut self, members: Vec<Id>) -> Option<Result<(), TorchFault>> {
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

    pub(super) fn remember(&mut self, slot: usize) -> Option<Result<(), TorchFault>> {
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

    pub(super) fn recall(&mut self, slot: usize) -> Option<()> {
        let id = self.memo.get(slot).copied().flatten()?;
        // The stack is limited with the instructions: each pushes at most one.
        self.stack.push(id);
        Some(())
    }

    pub(super) fn global(&mut self, module: &[u8], name: &[u8]) -> Result<(), TorchFault> {
        let full = [module, b".", name].concat();
        match GLOBALS.iter().find(|known| known.as_bytes() == full) {
            Some(known) => self.push(Value::Global(known)),
            None => Err(TorchFault::Global { name: shown(&String::from_utf8_lossy(&full)) }),
        }
    }

    pub(super) fn call(
        &mut self,
        callee: &'static str,
        arguments: Vec<Id>,
    ) -> Result<(), TorchFault> {
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
    pub(super) fn listed_pairs(&self, arguments: &[Id]) -> Vec<(Id, Id)> {
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
