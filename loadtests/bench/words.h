// What the fake provider says, in seven wire languages. Shapes and lengths as the real ones send them.
#pragma once
#include "common.h"

#define HEAD \
  "HTTP/1.1 %d %s\r\nDate: Mon, 24 Nov 2025 10:00:00 GMT\r\nServer: fake\r\nopenai-processing-ms: 12\r\n" \
  "openai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 200000\r\n" \
  "x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 199987\r\n" \
  "x-ratelimit-reset-requests: 8.64s\r\nx-request-id: req_0123456789abcdef0123456789abcdef\r\n"
#define OPENAI_ANSWER \
  "{\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion\",\"created\":1763800000," \
  "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\"," \
  "\"content\":\"%s %s " STAMP " " STAMP " %s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}]," \
  "\"usage\":{\"prompt_tokens\":212,\"completion_tokens\":34,\"total_tokens\":246," \
  "\"prompt_tokens_details\":{\"cached_tokens\":0}},\"system_fingerprint\":\"fp_0123456789\"}"
#define ANTHROPIC_ANSWER \
  "{\"id\":\"msg_01AbCdEfGhIjKlMnOpQrStUv\",\"type\":\"message\",\"role\":\"assistant\"," \
  "\"model\":\"claude-3-5-haiku-20241022\",\"content\":[{\"type\":\"text\",\"text\":\"%s %s " STAMP " " STAMP \
  " %s\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":212,\"output_tokens\":34}}"
#define RESPONSES_ANSWER \
  "{\"id\":\"resp_0123456789abcdef0123456789abcdef0123456789abcdef\",\"object\":\"response\",\"created_at\":1763800000," \
  "\"status\":\"completed\",\"error\":null,\"incomplete_details\":null,\"model\":\"gpt-5-2025-08-07\",\"output\":[" \
  "{\"id\":\"msg_0123456789abcdef0123456789abcdef0123456789abcdef\",\"type\":\"message\",\"status\":\"completed\"," \
  "\"content\":[{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"%s %s " STAMP " " STAMP \
  " %s\"}],\"role\":\"assistant\"}],\"parallel_tool_calls\":true,\"store\":false,\"temperature\":1.0," \
  "\"tool_choice\":\"auto\",\"tools\":[],\"usage\":{\"input_tokens\":212,\"input_tokens_details\":{" \
  "\"cached_tokens\":0},\"output_tokens\":34,\"output_tokens_details\":{\"reasoning_tokens\":0}," \
  "\"total_tokens\":246},\"user\":null,\"metadata\":{}}"
#define GEMINI_ANSWER \
  "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"%s %s " STAMP " " STAMP " %s\"}],\"role\":\"model\"}," \
  "\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":212,\"candidatesTokenCount\":34," \
  "\"totalTokenCount\":246,\"promptTokensDetails\":[{\"modality\":\"TEXT\",\"tokenCount\":212}]}," \
  "\"modelVersion\":\"gemini-2.5-flash\",\"responseId\":\"AbCdEfGhIjKlMnOpQrStUv\"}"
#define BEDROCK_ANSWER \
  "{\"metrics\":{\"latencyMs\":512}," \
  "\"output\":{\"message\":{\"content\":[{\"text\":\"%s %s " STAMP " " STAMP " %s\"}]," \
  "\"role\":\"assistant\"}},\"stopReason\":\"end_turn\",\"usage\":{\"cacheReadInputTokens\":0," \
  "\"cacheWriteInputTokens\":0,\"inputTokens\":212,\"outputTokens\":34,\"totalTokens\":246}}"
#define COHERE_ANSWER \
  "{\"id\":\"01234567-89ab-cdef-0123-456789abcdef\",\"message\":{\"role\":\"assistant\"," \
  "\"content\":[{\"type\":\"text\"," \
  "\"text\":\"%s %s " STAMP " " STAMP " %s\"}]},\"finish_reason\":\"COMPLETE\",\"usage\":{\"billed_units\":" \
  "{\"input_tokens\":200,\"output_tokens\":34},\"tokens\":{\"input_tokens\":212,\"output_tokens\":34}," \
  "\"cached_tokens\":0}}"
#define OLLAMA_ANSWER \
  "{\"model\":\"qwen3\",\"created_at\":\"2025-11-24T10:00:00.123456789Z\",\"message\":{\"role\":\"assistant\"," \
  "\"content\":\"%s %s " STAMP " " STAMP " %s\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":512345678," \
  "\"load_duration\":12345678,\"prompt_eval_count\":212,\"prompt_eval_duration\":1234567,\"eval_count\":34," \
  "\"eval_duration\":498765432}"

// ---- streams

#define CHUNK \
  "data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOp\",\"object\":\"chat.completion.chunk\",\"created\":1763800000," \
  "\"model\":\"gpt-4o-mini\",\"choices\":["
#define OPENAI_START \
  CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n"
#define OPENAI_WORD \
  CHUNK "{\"index\":0,\"delta\":{\"content\":\"w%05d %s " STAMP " \"},\"finish_reason\":null}]}\n\n"
#define OPENAI_FINISH CHUNK "{\"index\":0,\"delta\":{},\"finish_reason\":%s}]}\n\n"
#define OPENAI_USAGE \
  CHUNK "],\"usage\":{\"prompt_tokens\":212,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n"
#define ANTHROPIC_START \
  "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01AbCdEfGhIjKlMnOpQrStUv\"," \
  "\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-3-5-haiku-20241022\",\"content\":[]," \
  "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":212,\"output_tokens\":1}}}\n\n" \
  "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0," \
  "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
#define ANTHROPIC_WORD \
  "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{" \
  "\"type\":\"text_delta\",\"text\":\"w%05d %s " STAMP " \"}}\n\n"
#define ANTHROPIC_FINISH \
  "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n" \
  "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":%s," \
  "\"stop_sequence\":null},\"usage\":{\"output_tokens\":%d}}\n\n"
#define ANTHROPIC_STOP "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
#define RESPONSES_START \
  "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":" \
  "\"resp_0123456789abcdef0123456789abcdef0123456789abcdef\",\"object\":\"response\",\"status\":\"in_progress\"," \
  "\"model\":\"gpt-5-2025-08-07\",\"output\":[]}}\n\nevent: response.output_item.added\ndata: {\"type\":" \
  "\"response.output_item.added\",\"sequence_number\":1,\"output_index\":0,\"item\":{\"id\":\"msg_01\",\"type\":" \
  "\"message\",\"status\":\"in_progress\",\"content\":[],\"role\":\"assistant\"}}\n\n"
#define RESPONSES_WORD \
  "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"content_index\":0," \
  "\"delta\":\"w%05d %s " STAMP " \",\"item_id\":\"msg_0123456789abcdef0123456789abcdef0123456789abcdef\"," \
  "\"logprobs\":[],\"obfuscation\":\"abcdefgh\",\"output_index\":0,\"sequence_number\":2}\n\n"
#define RESPONSES_FINISH \
  "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":3,\"response\":{\"id\":" \
  "\"resp_0123456789abcdef0123456789abcdef0123456789abcdef\",\"object\":\"response\",\"status\":\"completed\"," \
  "\"model\":\"gpt-5-2025-08-07\",\"output\":[],\"usage\":{\"input_tokens\":212,\"output_tokens\":%d," \
  "\"total_tokens\":%d}}}\n\n"
#define GEMINI_WORD \
  "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"w%05d %s " STAMP " \"}],\"role\": \"model\"}," \
  "\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 212,\"candidatesTokenCount\": %d,\"totalTokenCount\": %d," \
  "\"promptTokensDetails\": [{\"modality\": \"TEXT\",\"tokenCount\": 212}]},\"modelVersion\": \"gemini-2.5-flash\"," \
  "\"responseId\": \"AbCdEfGhIjKlMnOpQrStUv\"}\r\n\r\n"
#define GEMINI_FINISH \
  "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"\"}],\"role\": \"model\"},\"finishReason\": %s," \
  "\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 212,\"candidatesTokenCount\": %d," \
  "\"totalTokenCount\": %d}," \
  "\"modelVersion\": \"gemini-2.5-flash\",\"responseId\": \"AbCdEfGhIjKlMnOpQrStUv\"}\r\n\r\n"
#define BEDROCK_START "{\"p\":\"abcdefghijklmnopq\",\"role\":\"assistant\"}"
#define BEDROCK_WORD \
  "{\"contentBlockIndex\":0,\"delta\":{\"text\":\"w%05d %s " STAMP " \"},\"p\":\"abcdefghijklmnopqrstuvwxyzABCDEFG\"}"
#define BEDROCK_FINISH "{\"p\":\"abcdefghijklmnop\",\"stopReason\":\"end_turn\"}"
#define BEDROCK_USAGE \
  "{\"metrics\":{\"latencyMs\":512},\"p\":\"abcdefghijkl\",\"usage\":{\"inputTokens\":212,\"outputTokens\":%d," \
  "\"totalTokens\":%d}}"
#define COHERE_START \
  "event: message-start\ndata: {\"id\":\"01234567-89ab-cdef-0123-456789abcdef\",\"type\":\"message-start\",\"delta\":" \
  "{\"message\":{\"role\":\"assistant\",\"content\":[],\"tool_plan\":\"\",\"tool_calls\":[],\"citations\":[]}}}\n\n" \
  "event: content-start\ndata: {\"type\":\"content-start\",\"index\":0,\"delta\":{\"message\":{\"content\":" \
  "{\"type\":\"text\",\"text\":\"\"}}}}\n\n"
#define COHERE_WORD \
  "event: content-delta\ndata: {\"type\":\"content-delta\",\"index\":0,\"delta\":{\"message\":{\"content\":" \
  "{\"text\":\"w%05d %s " STAMP " \"}}}}\n\n"
#define COHERE_FINISH \
  "event: content-end\ndata: {\"type\":\"content-end\",\"index\":0}\n\nevent: message-end\ndata: {\"type\":" \
  "\"message-end\",\"delta\":{\"finish_reason\":\"COMPLETE\",\"usage\":{\"billed_units\":{\"input_tokens\":200," \
  "\"output_tokens\":%d},\"tokens\":{\"input_tokens\":212,\"output_tokens\":%d}}}}\n\n"
#define OLLAMA_WORD \
  "{\"model\":\"qwen3\",\"created_at\":\"2025-11-24T10:00:00.123456789Z\",\"message\":{\"role\":\"assistant\"," \
  "\"content\":\"w%05d %s " STAMP " \"},\"done\":false}\n"
#define OLLAMA_FINISH \
  "{\"model\":\"qwen3\",\"created_at\":\"2025-11-24T10:00:00.123456789Z\",\"message\":{\"role\":\"assistant\"," \
  "\"content\":\"\"},\"done\":%s,\"done_reason\":\"stop\",\"total_duration\":512345678,\"prompt_eval_count\":212," \
  "\"eval_count\":%d}\n"
