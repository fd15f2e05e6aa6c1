//! What a linked program demands of the machine that runs it, read from its symbol table.

use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;

/// The oldest glibc that task images may have: that of CentOS 7 and of manylinux2014.
pub const OLDEST_GLIBC: (u32, u32) = (2, 17);

/// Fails with the symbol's name when `program` needs a newer glibc than the oldest one.
pub fn check_glibc(program: &Path) -> Result<()> {
    let table = sh::output(
        sh::command("readelf")
            .args(["--dyn-syms", "--wide"])
            .arg(program),
    )?;
    match newest(&table) {
        Some((version, symbol)) if version > OLDEST_GLIBC => bail!(
            "{} needs glibc {}.{} for `{symbol}`, and {}.{} must do",
            program.display(),
            version.0,
            version.1,
            OLDEST_GLIBC.0,
            OLDEST_GLIBC.1
        ),
        Some(_) => Ok(()),
        None => bail!(
            "{} uses no symbol of glibc: it is not the program for images with glibc",
            program.display()
        ),
    }
}

/// Fails when `program` asks for a dynamic loader, which an image without C library does not have.
pub fn check_static(program: &Path) -> Result<()> {
    let headers = sh::output(
        sh::command("readelf")
            .args(["--program-headers", "--wide"])
            .arg(program),
    )?;
    if headers
        .lines()
        .any(|line| line.trim_start().starts_with("INTERP"))
    {
        bail!(
            "{} is not static: it asks for a dynamic loader",
            program.display()
        );
    }
    Ok(())
}

/// The newest version of glibc in the table and one symbol that has it.
pub fn newest(table: &str) -> Option<((u32, u32), String)> {
    let symbols = table.split_whitespace().filter_map(|word| {
        let (symbol, version) = word
            .split_once("@GLIBC_")
            .map(|(symbol, version)| (symbol.trim_end_matches('@'), version))?;
        let mut numbers = version.trim_start_matches('@').split('.').map(str::parse);
        Some((
            (numbers.next()?.ok()?, numbers.next()?.ok()?),
            symbol.to_owned(),
        ))
    });
    symbols.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_by_number_not_by_text() {
        let table = "
             1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (2)
             2: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND write@GLIBC_2.2.5 (3)
             3: 0000000000000000     0 FUNC    WEAK   DEFAULT  UND getrandom@GLIBC_2.25 (4)
             4: 0000000000000000     0 NOTYPE  WEAK   DEFAULT  UND __gmon_start__
             5: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND _Unwind_Resume@GCC_3.0 (5)";
        assert_eq!(newest(table), Some(((2, 25), "getrandom".to_owned())));
        assert_eq!(newest("no symbols"), None);
    }
}
