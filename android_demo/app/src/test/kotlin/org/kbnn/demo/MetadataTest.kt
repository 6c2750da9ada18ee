package org.kbnn.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource

class MetadataTest {
    @Test
    fun `an index as export-android writes it`() {
        val metadata = Metadata.parse(INDEX) { if (it.file == "pets.tflite") PETS else error(it.file) }
        val model = metadata.models.single()
        assertEquals(listOf("cat", "dog"), model.labels)
        assertEquals(InputSpec(32, 24, 3, 36, listOf(1.5f, 2f, 3f), listOf(4f, 5f, 6f), true), model.input)
        assertEquals(ModelEntry("pets", "pets.tflite", "00", 28772, 0.975, true), model.entry)
    }

    @ParameterizedTest
    @CsvSource(
        delimiter = '|',
        quoteCharacter = '`',
        value = [
            "\"format\": 4        | \"format\": 3         | has format 3",
            "\"returns_probabilities\": true | \"returns\": 1 | cannot be read",
            "\"models\"           | \"files\"             | cannot be read",
            "\"sha256\"           | \"md5\"               | cannot be read",
            "\"shorter_side\": 36 | \"shorter_side\": 30  | does not fit",
            "[{                    | [], \"left\": [{       | names no models",
            "}                     | ]                       | cannot be read",
        ],
    )
    fun `an index that cannot be used says why`(old: String, new: String, reason: String) =
        assertRefused(reason) { Metadata.parse(INDEX.replace(old, new)) { PETS } }

    @Test
    fun `every model keeps what its own file says`() {
        val second = """, {"name": "birds", "file": "birds.tflite", "sha256": "11", "size_bytes": 5, "binary_share": 0.5,
            "returns_probabilities": false}]"""
        val birds = PETS.copy(labels = listOf("owl"), mean = listOf(0f, 0f, 0f))
        val found = Metadata.parse(INDEX.replace("]", second)) { if (it.name == "pets") PETS else birds }
        assertEquals(listOf(listOf("cat", "dog"), listOf("owl")), found.models.map { it.labels })
        assertEquals(listOf(PETS.mean, birds.mean), found.models.map { it.input.mean })
        assertRefused("'birds.tflite' names no labels") {
            Metadata.parse(INDEX.replace("]", second)) { if (it.name == "pets") PETS else birds.copy(labels = emptyList()) }
        }
    }

    @Test
    fun `a file with another hash than the index names is refused`() {
        // SHA-256 of "abc", from FIPS 180-2.
        val digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        val entry = ModelEntry("pets", "pets.tflite", digest, 3, 0.5, false)
        assertEquals(3, entry.verified("abc".toByteArray()).size)
        assertRefused("'pets.tflite' is not the file") { entry.verified("abd".toByteArray()) }
    }

    @Test
    fun `a file that does not fit the app says why`() {
        assertRefused("'pets.tflite' names no labels") { Metadata.parse(INDEX) { PETS.copy(labels = emptyList()) } }
        assertRefused("mean and std") { Metadata.parse(INDEX) { PETS.copy(std = listOf(4f, 0f, 6f)) } }
        assertRefused("mean and std") { Metadata.parse(INDEX) { PETS.copy(mean = listOf(1.5f, 2f)) } }
        assertRefused("does not fit") { Metadata.parse(INDEX) { PETS.copy(height = 0) } }
    }

    private fun assertRefused(reason: String, parse: () -> Any) {
        val error = assertThrows(IllegalArgumentException::class.java) { parse() }
        assertTrue(reason in error.message!!) { error.message }
    }

    private companion object {
        val PETS = FileDescription(listOf("cat", "dog"), 32, 24, 3, listOf(1.5f, 2f, 3f), listOf(4f, 5f, 6f))
        const val INDEX = """{
            "format": 4, "shorter_side": 36, "square": true,
            "models": [{"name": "pets", "file": "pets.tflite", "sha256": "00", "size_bytes": 28772,
                        "binary_share": 0.975, "returns_probabilities": true}]
        }"""
    }
}
