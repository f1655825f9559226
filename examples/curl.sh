#!/usr/bin/env bash
# The API with nothing but curl. Needs OPENAI_BASE_URL and OPENAI_API_KEY, as the README here says.
set -euo pipefail

ask() {
  curl --silent --show-error --fail-with-body --no-buffer "$OPENAI_BASE_URL/$1" \
    --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" "${@:2}"
  echo
}

ask models
ask chat/completions --data '{"model": "mini", "seed": 0,
  "messages": [{"role": "user", "content": "play something by Nina Simone on Spotify"}]}'
ask chat/completions --data '{"model": "mini", "seed": 0, "stream": true, "diffusion": {"drafts": true},
  "messages": [{"role": "user", "content": "what is the weather in Oslo"}]}'
# One value of a call hidden, and found again.
ask infill --data '{"model": "mini", "seed": 0,
  "messages": [{"role": "user", "content": "play something by Nina Simone on Spotify"}],
  "text": "<|tool_call>call:PlayMusic{artist:<|\"|>[[...]]<|\"|>,service:<|\"|>Spotify<|\"|>}<tool_call|>"}'
