# Makes sure that cargo and a linker are there; ./quickstart and ./test source it.
# All other packages are asked for in xtask/src/setup.rs, which these two can build.
export PATH="$HOME/.cargo/bin:$PATH"
missing=()
command -v cargo >/dev/null || command -v curl >/dev/null || missing+=(ca-certificates curl)
command -v cc >/dev/null || missing+=(build-essential)
if [ "${#missing[@]}" -gt 0 ]; then
  command -v apt-get >/dev/null ||
    { echo "error: this is not Debian or Ubuntu; install a C compiler with its linker (cc), curl, and Rust by rustup" >&2; exit 1; }
  [ "$EUID" = 0 ] ||
    { echo "error: packages are missing; run: sudo apt-get install ${missing[*]}" >&2; exit 1; }
  apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"
fi
command -v cargo >/dev/null ||
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal --default-toolchain none
