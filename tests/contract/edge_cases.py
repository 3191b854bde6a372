"""Which tests hold each of the forty edge cases of wire formats. `test_edge_cases` holds the list to what exists."""

from typing import Final

# By number: where it is held, `file::test` below tests/.
HELD_BY: Final[dict[int, tuple[str, ...]]] = {
    # the last event without its blank line
    1: (
        "contract/test_edge_cases.py::test_01_the_last_event_needs_no_blank_line",
        "test_sse.py::test_last_event_needs_no_blank_line",
        "test_openai_stream.py::test_the_goodbye_is_always_whole",
    ),
    # comments, pings, ids, waits, empty data
    2: (
        "contract/test_edge_cases.py::test_02_what_crashes_an_sdk_is_not_passed_on",
        "test_sse.py::test_events_without_data_are_nothing",
    ),
    # what is cut over two reads; line ends that are none
    3: (
        "contract/test_edge_cases.py::test_03_only_bytes_end_a_line",
        "test_sse.py::test_every_cut_gives_the_same_events",
        "test_sse.py::test_three_line_ends",
    ),
    # usage that the client did not ask for
    4: (
        "test_openai_stream.py::test_usage_is_dropped_when_not_asked",
        "test_passthrough.py::test_usage_is_passed_on_only_when_asked_for",
    ),
    # usage in odd places
    5: (
        "contract/test_edge_cases.py::test_05_usage_is_one_chunk_before_the_end",
        "test_openai_stream.py::test_usage_comes_once_at_the_end_when_asked",
        "test_openai_stream.py::test_usage_that_never_came_is_not_made_up",
    ),
    # a whole answer to a stream's request
    6: (
        "test_wire.py::test_whole_answer_becomes_a_stream_with_all_its_fields",
        "test_faults.py::test_odd_but_good_answers_are_used",
    ),
    # an error before the first byte, nobody left
    7: (
        "test_streams.py::test_nothing_is_sent_before_content",
        "test_faults.py::test_all_fail",
    ),
    # an error after content
    8: (
        "contract/test_edge_cases.py::test_08_an_error_after_content_is_no_end",
        "test_streams.py::test_cut",
    ),
    # an error as the first event
    9: (
        "contract/test_edge_cases.py::test_09_nothing_is_committed_before_content",
        "test_streams.py::test_cut_with_a_fallback",
    ),
    # a reset after content
    10: (
        "test_streams.py::test_cut",
        "test_fault_positions.py::test_every_place",
    ),
    # [DONE] without a finish reason
    11: (
        "contract/test_edge_cases.py::test_11_a_missing_finish_is_added",
        "test_openai_stream.py::test_a_missing_finish_is_added",
    ),
    # two finish reasons
    12: (
        "contract/test_edge_cases.py::test_12_13_each_choice_ends_once",
        "test_openai_finish.py::test_a_finish_is_told_once",
    ),
    # two choices, interleaved
    13: (
        "contract/test_edge_cases.py::test_12_13_each_choice_ends_once",
        "test_openai_stream.py::test_two_choices_may_be_interleaved",
        "test_openai_calls.py::test_choices_number_their_calls_apart",
    ),
    # Azure's chunks without choices
    14: (
        "contract/test_edge_cases.py::test_14_azures_first_chunk_is_left_out",
        "test_openai_dialects.py::test_chunks_without_choices_go_where_the_row_says_so",
    ),
    # AWS's framing
    15: (
        "contract/test_edge_cases.py::test_15_a_damaged_message_is_a_fault",
        "test_bedrock_frames.py::test_pieces_of_any_size_make_the_same_messages",
        "test_bedrock_frames.py::test_a_flipped_bit_is_a_fault",
        "test_bedrock_stream.py::test_usage_comes_after_the_stop",
    ),
    # a client that leaves
    16: (
        "test_streams.py::test_a_client_that_leaves_a_stream",
        "test_fault_matrix.py::test_a_client_that_leaves",
    ),
    # a text before two calls
    17: (
        "contract/test_edge_cases.py::test_17_calls_are_numbered_from_zero",
        "test_anthropic_stream.py::test_tool_calls_have_their_own_numbers",
    ),
    # the placeholder of a call's input
    18: (
        "contract/test_edge_cases.py::test_18_the_placeholder_is_no_argument",
        "test_anthropic_stream.py::test_call_without_arguments_has_an_empty_object",
    ),
    # Gemini's call without arguments
    19: (
        "contract/test_edge_cases.py::test_19_geminis_stop_after_a_call_is_a_call",
        "test_gemini_stream.py::test_call_is_one_delta_and_the_reason",
    ),
    # Ollama's calls
    20: (
        "contract/test_edge_cases.py::test_20_ollamas_calls_are_told_apart",
        "contract/test_edge_cases.py::test_20_ollamas_arguments_may_be_text",
        "test_ollama.py::test_lines_become_chunks",
    ),
    # repeated ids, missing indexes
    21: (
        "contract/test_edge_cases.py::test_21_names_are_told_once",
        "test_openai_calls.py::test_two_calls_are_two",
        "test_openai_calls.py::test_a_missing_index_is_repaired_for_every_provider",
    ),
    # results of parallel calls
    22: (
        "contract/test_edge_cases.py::test_22_results_of_one_turn_stand_together",
        "test_anthropic_history.py::test_results_of_one_turn_come_first_in_the_next",
        "test_bedrock_messages.py::test_calls_are_answered_in_the_next_turn",
        "test_gemini_messages.py::test_results_of_one_turn_come_first_in_the_next",
    ),
    # missing and repeated results
    23: (
        "test_anthropic_history.py::test_missing_result_gets_a_placeholder_and_the_last_of_two_wins",
        "test_bedrock_messages.py::test_missing_and_repeated_results",
        "test_gemini_messages.py::test_missing_result_gets_a_placeholder_and_the_last_of_two_wins",
        "test_cohere_messages.py::test_gaps_are_filled",
    ),
    # ids and names that are illegal upstream
    24: (
        "contract/test_edge_cases.py::test_24_ids_are_legal_upstream",
        "test_called_names.py::test_renamed_tool_gets_its_name_back",
        "test_anthropic_history.py::test_illegal_call_id_is_made_legal",
    ),
    # arguments that are no object
    25: (
        "contract/test_edge_cases.py::test_25_arguments_are_an_object_upstream",
        "test_anthropic_history.py::test_arguments_become_an_object",
        "test_cohere_messages.py::test_arguments_are_an_object",
    ),
    # digits
    26: (
        "contract/test_edge_cases.py::test_26_digits_stay",
        "test_bedrock_messages.py::test_digits_in_arguments_are_kept",
    ),
    # tool_choice none with a history of calls
    27: (
        "test_bedrock_tools.py::test_none_leaves_the_tools_out",
        "test_bedrock_tools.py::test_none_with_a_history_of_calls",
    ),
    # one call at a time
    28: (
        "test_anthropic_tools.py::test_tool_choice_is_translated",
        "test_anthropic_tools.py::test_tool_choice_without_tools_is_dropped",
    ),
    # a forced tool on a model that takes none
    29: ("test_anthropic_tools.py::test_model_that_cannot_be_forced_is_not_asked",),
    # a schema by a forced tool
    30: (
        "test_anthropic_tools.py::test_emulated_answer_is_content",
        "test_anthropic_tools.py::test_streamed_emulated_answer_is_content",
        "test_bedrock_stream.py::test_structured_answer_of_an_older_model_is_content",
    ),
    # tools and effort on OpenAI's newest
    31: ("contract/test_edge_cases.py::test_31_effort_is_never_dropped_silently",),
    # thinking that has to come back
    32: ("test_anthropic_request.py::test_budget_thinking_is_off_where_it_would_be_refused",),
    # signatures and a change of provider
    33: (
        "test_gemini_messages.py::test_signature_of_another_model_is_replaced",
        "test_gemini_messages.py::test_lost_signature_is_replaced_once_per_step",
    ),
    # the names of reasoning
    34: (
        "contract/test_edge_cases.py::test_34_reasoning_has_one_name",
        "test_openai_dialects.py::test_reasoning_has_one_name",
        "test_openai_dialects.py::test_the_provider_gets_its_own_name_back",
    ),
    # Anthropic's usage
    35: (
        "contract/test_edge_cases.py::test_35_anthropics_reports_replace_one_another",
        "test_anthropic_stream.py::test_usage_is_replaced_field_by_field",
    ),
    # Gemini's usage
    36: (
        "contract/test_edge_cases.py::test_36_geminis_snapshots_are_not_summed",
        "test_gemini_stream.py::test_usage_is_the_last_snapshot_of_each_count",
    ),
    # finish reasons
    37: (
        "contract/test_edge_cases.py::test_37_only_openais_words_reach_the_client",
        "test_openai_finish.py::test_finish_reasons_are_openais",
        "test_anthropic.py::test_only_openais_finish_reasons_reach_the_client",
        "test_gemini.py::test_refused_prompt_is_an_empty_answer",
    ),
    # limits, quotas, keys, filters
    38: (
        "contract/test_edge_cases.py::test_38_an_error_has_its_kind",
        "test_classify.py::test_status_alone_would_misjudge",
        "test_rests.py::test_used_up_credit_rests_longer",
    ),
    # shapes of errors
    39: (
        "contract/test_edge_cases.py::test_39_every_shape_becomes_openais",
        "test_classify.py::test_every_shape_becomes_openais",
        "test_fault_matrix.py::test_when_all_fail",
    ),
    # bodies that cannot be sent on
    40: (
        "test_wire.py::test_what_cannot_be_sent_on_is_refused",
        "test_wire.py::test_byte_order_mark_is_refused",
        "test_anthropic_request.py::test_schema_of_300_levels_is_no_crash",
    ),
}
