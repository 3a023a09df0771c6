//! The table: a row for each kernel and type, a column for each target.

use std::collections::BTreeMap;

use crate::paper::Compiled;
use crate::target::Target;

/// Prints bytes of source; with several variants of a kernel their number and the largest; `FAILED` for an
/// error; `-` where the launchers do not use the kernel.
pub(crate) fn print(compiled: &[Compiled]) {
    let mut rows: BTreeMap<(String, &str), BTreeMap<&str, Vec<&Compiled>>> = BTreeMap::new();
    for kernel in compiled {
        let row = rows.entry((short(&kernel.kernel), kernel.dtype.as_str())).or_default();
        row.entry(kernel.target).or_default().push(kernel);
    }
    let width = rows.keys().map(|(kernel, _)| kernel.len()).max().unwrap_or(0);
    let targets: Vec<&str> = Target::all().iter().map(|target| target.name()).collect();
    let header: String = targets.iter().map(|name| format!("{name:>12}")).collect();
    println!("{:<width$}  {:<5}{header}", "kernel", "dtype");
    for ((kernel, dtype), cells) in &rows {
        let cells =
            targets.iter().map(|target| cells.get(target).map_or("-".to_owned(), |c| cell(c)));
        let cells: String = cells.map(|cell| format!("{cell:>12}")).collect();
        println!("{kernel:<width$}  {dtype:<5}{cells}");
    }
}

fn cell(variants: &[&Compiled]) -> String {
    if variants.iter().any(|kernel| kernel.result.is_err()) {
        return "FAILED".to_owned();
    }
    let bytes = variants.iter().filter_map(|kernel| kernel.result.as_ref().ok());
    let largest = bytes.map(|built| built.source.bytes()).max().unwrap_or(0);
    match variants.len() {
        1 => largest.to_string(),
        count => format!("{count}x{largest}"),
    }
}

/// `vitmae_kernels::gemm::tiled::tiled_kernel::TiledKernel` is `gemm::tiled_kernel`; a kernel of a library
/// keeps the name of its crate.
pub(crate) fn short(kernel: &str) -> String {
    let parts: Vec<&str> = kernel.split("::").collect();
    let first = if parts[0] == "vitmae_kernels" { parts.get(1) } else { parts.first() };
    let last = parts.len().checked_sub(2).and_then(|at| parts.get(at));
    format!("{}::{}", first.unwrap_or(&""), last.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn names_are_shortened() {
        let path = "vitmae_kernels::gemm::tiled::tiled_kernel::TiledKernel";
        assert_eq!(short(path), "gemm::tiled_kernel");
    }
}
