//! The clients as processes, each through the same scenarios against a real relay: in Rust, in
//! TypeScript with Node.js, and in Python. A proxy between them cuts, delays and refuses.

mod document;
mod driver;
mod faults;
mod messages;
mod own;
mod proxy;

use driver::Language;

/// One test for each scenario and language.
macro_rules! scenarios {
    ($($module:ident: $($scenario:ident),*;)*) => {
        mod rust {
            $($(#[test] fn $scenario() { super::$module::$scenario(super::Language::Rust); })*)*
        }
        mod typescript {
            $($(#[test] fn $scenario() { super::$module::$scenario(super::Language::TypeScript); })*)*
        }
        mod python {
            $($(#[test] fn $scenario() { super::$module::$scenario(super::Language::Python); })*)*
        }
    };
}

scenarios! {
    messages:
        messages_arrive_once_and_in_order_by_waiting_pulls,
        messages_arrive_once_and_in_order_by_a_stream,
        a_large_message_comes_back_whole,
        interleaved_chunks_make_their_messages,
        an_impossible_number_of_chunks_is_skipped,
        chunks_of_another_length_are_skipped,
        a_message_id_that_is_pushed_twice_arrives_once,
        a_push_after_the_dedup_window_is_a_new_message_to_new_deliveries,
        chunks_that_come_after_the_age_of_a_message_complete_it,
        an_item_that_expires_before_its_ack_is_acked,
        what_is_not_acked_comes_again;
    faults:
        a_rate_limit_delays_and_loses_nothing,
        a_relay_that_drains_is_asked_again,
        a_server_of_the_first_version_is_polled,
        a_slow_link_is_used_to_its_end,
        a_slow_upload_goes_in_smaller_requests,
        a_page_that_is_too_large_comes_item_by_item,
        a_wrong_proof_ends_the_deliveries,
        a_clock_that_is_a_day_wrong_is_corrected_once,
        a_clock_is_corrected_no_second_time,
        an_answer_that_is_cut_at_any_byte_changes_nothing;
}

/// These take long, or measure.
mod heavy {
    use super::{Language, faults, messages};

    #[test]
    fn a_relay_that_is_killed_again_and_again_loses_no_message() {
        for language in Language::ALL {
            faults::a_relay_that_is_killed_again_and_again_loses_no_message(language);
        }
    }

    #[test]
    fn memory_stays_flat_over_many_messages() {
        for language in Language::ALL {
            messages::memory_stays_flat_over_many_messages(language);
        }
    }
}
