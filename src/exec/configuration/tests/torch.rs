//! Where PyTorch's builds are taken from.

use super::*;

/// Variables and their values.
type Set = &'static [(&'static str, &'static str)];

#[test]
fn no_index_of_pytorch_is_asked_beside_one_of_ones_own_unless_it_is_named() {
    let of_agent = "agent.package_manager.extra_index_url_template: \"http://whl/cu{}/\"";
    let of_ours = "agent.package_manager.extra_index_url_template: \"http://whl/{}\"";
    let none = "agent.package_manager.pytorch_resolve: none";
    let own: Set = &[("PIP_INDEX_URL", "http://own")];
    let cases: [(&str, Set, bool, Option<&str>); 8] = [
        ("", &[], false, Some(PUBLIC)),
        ("", own, false, None),
        ("", &[("UV_OFFLINE", "1")], false, None),
        ("", &[("PIP_INDEX_URL", "")], false, Some(PUBLIC)),
        ("", &[], true, None),
        (of_ours, own, true, Some("http://whl/{}")),
        // As the agent has it, the number alone.
        (of_agent, own, true, Some("http://whl/{}/")),
        (none, &[], false, None),
    ];
    for (text, set, indexed, expected) in cases {
        let found = torch_index(&configured(text, &[]), &variables(set), indexed);
        assert_eq!(found.as_deref(), expected, "{text} {set:?}");
    }
}

#[test]
fn a_page_of_links_counts_where_it_is_named_and_an_index_goes_first_but_for_direct() {
    let page = "torch_page: \"http://whl/cu{}/stable.html\"";
    let nightly = "torch_nightly_page: \"http://whl/cu{}/nightly.html\"";
    let index = "extra_index_url_template: \"http://index/cu{}\"";
    let (of_page, of_nightly, of_index) = (
        "http://whl/{}/stable.html",
        "http://whl/{}/nightly.html",
        "http://index/{}",
    );
    for (keys, expected, is_page) in [
        (vec![page], Some(of_page), true),
        (vec![page, "torch_nightly: true"], Some(of_page), true),
        (
            vec![page, nightly, "torch_nightly: true"],
            Some(of_nightly),
            true,
        ),
        (vec![page, nightly], Some(of_page), true),
        // Nobody has asked for it.
        (vec![nightly], None, false),
        (vec![page, index], Some(of_index), false),
        (
            vec![page, index, "pytorch_resolve: direct"],
            Some(of_page),
            true,
        ),
        (
            vec![index, "pytorch_resolve: direct"],
            Some(of_index),
            false,
        ),
        (vec![], None, false),
    ] {
        let text = format!("agent.package_manager {{ {} }}", keys.join(", "));
        let agent = configured(&text, &[]);
        // Where packages come from an index of one's own, nothing is asked but what is named.
        let found = torch_index(&agent, &variables(&[]), true);
        assert_eq!(found.as_deref(), expected, "{text}");
        assert_eq!(of_torch::is_page(&agent), is_page, "{text}");
    }
    let none = format!("agent.package_manager {{ {page}, pytorch_resolve: none }}");
    let found = torch_index(&configured(&none, &[]), &variables(&[]), false);
    assert_eq!(found, None);
}
